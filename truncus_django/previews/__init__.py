"""Previews: the emails of a project in the browser, before anybody gets them.

Each app has its previews in ``email_previews.py``, and the project has one line in its URLs:
``path("emails/", include("truncus_django.previews.urls"))``.
"""

from truncus_django.previews.base import EmailPreviews

__all__ = ["EmailPreviews"]
