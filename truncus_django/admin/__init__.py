"""The log in Django's admin: the list, an email's page, actions, the dashboard; and the addresses
that must not be mailed."""

from django.contrib import admin

from truncus_django.admin.email_admin import EmailAdmin
from truncus_django.admin.suppression_admin import SuppressedAddressAdmin
from truncus_django.models import Email, SuppressedAddress

__all__ = ["EmailAdmin", "SuppressedAddressAdmin"]

admin.site.register(Email, EmailAdmin)
admin.site.register(SuppressedAddress, SuppressedAddressAdmin)
