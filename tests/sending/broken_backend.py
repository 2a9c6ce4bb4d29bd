"""A backend whose library is not set up, as its import finds out."""

from django.core.exceptions import ImproperlyConfigured

raise ImproperlyConfigured("There is no key.")
