"""Tags for the templates of a project's emails."""

from django import template

from truncus_django.unsubscribe import PLACEHOLDER

register = template.Library()


@register.simple_tag
def unsubscribe_url() -> str:
    """Return what becomes the recipient's unsubscribe link when the email is sent."""
    return PLACEHOLDER
