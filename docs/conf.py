"""How Sphinx builds the documentation; ``make docs`` runs it."""

import django
from django.conf import settings

from truncus_django import __version__

# The reference imports the package, and models need an app registry.
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "truncus_django",
    ]
)
django.setup()

project = "truncus-django"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures name internal types
# Django adds these to every model; its own documentation describes them.
autodoc_default_options = {"exclude-members": "DoesNotExist, MultipleObjectsReturned"}

html_theme = "furo"
html_title = f"truncus-django {release}"
