"""What the pages of the log in the admin have in common."""

from typing import Any

import django
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model
from django.http import HttpRequest

from truncus_django.models import Email

MAX_CHOICES = 30
"""With more tenants or mailers, the user types one."""


def page_basics(model_admin: "admin.ModelAdmin[Any]", request: HttpRequest) -> dict[str, Any]:
    """Return the context that every page needs."""
    request.current_app = model_admin.admin_site.name
    return {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "has_view_permission": True,
        "crumbs_are_a_list": django.VERSION >= (6, 1),  # Django changed its markup
    }


def log_change_without_object(
    request: HttpRequest, about: str, text: str, *, model: type[Model] = Email
) -> None:
    """Write a line that belongs to no single row of a model into the admin's history."""
    LogEntry.objects.create(
        user_id=request.user.pk,  # type: ignore[misc]  # has a permission
        content_type=ContentType.objects.get_for_model(model),
        object_id=None,
        object_repr=about[:200],
        action_flag=CHANGE,
        change_message=text,
    )
