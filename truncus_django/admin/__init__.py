"""The log in Django's admin: the list, an email's page, actions, and the dashboard."""

from django.contrib import admin

from truncus_django.admin.email_admin import EmailAdmin
from truncus_django.models import Email

__all__ = ["EmailAdmin"]

admin.site.register(Email, EmailAdmin)
