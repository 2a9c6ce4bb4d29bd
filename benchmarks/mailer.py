"""One mailer in the settings of every Django, and the backend that Django makes of it.

Django is imported when it is used: not every contender works with it.
"""

from typing import Any


def has_mailers() -> bool:
    """Return whether this Django has ``MAILERS``: since 6.1."""
    import django

    return django.VERSION >= (6, 1)


def mailer(backend: str, options: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """Return settings with one mailer; before Django 6.1, ``earlier`` holds its options."""
    if has_mailers():
        return {"MAILERS": {"default": {"BACKEND": backend, "OPTIONS": options}}}
    return {"EMAIL_BACKEND": backend, **earlier}


def default_backend() -> Any:
    """Return the backend that Django sends through."""
    from django.core import mail

    return mail.mailers.default if has_mailers() else mail.get_connection()
