"""What the admin's templates need on every page of ours."""

from typing import TYPE_CHECKING, Any

import django
from django.contrib import admin
from django.http import HttpRequest

if TYPE_CHECKING:
    from truncus_django.models import Email


def page_basics(model_admin: "admin.ModelAdmin[Email]", request: HttpRequest) -> dict[str, Any]:
    """Return the context of the site, and what breadcrumbs are made of."""
    request.current_app = model_admin.admin_site.name
    return {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        "has_view_permission": True,
        "crumbs_are_a_list": django.VERSION >= (6, 1),  # Django changed its markup
    }
