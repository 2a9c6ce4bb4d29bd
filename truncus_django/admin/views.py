"""What the pages of the log are made of; imported when the first of them is shown."""

from django.contrib.admin.views.main import SEARCH_VAR

from truncus_django.admin.actions import ACTIONS
from truncus_django.admin.changelist import EmailChangeList
from truncus_django.admin.dashboard import dashboard_context
from truncus_django.admin.detail import page_context
from truncus_django.admin.html_preview import html_response
from truncus_django.admin.outbox_panel import panel, parts_of_requests
from truncus_django.admin.quota_panel import quota_rows
from truncus_django.admin.resume import resume_page
from truncus_django.admin.search import search

__all__ = [
    "ACTIONS",
    "SEARCH_VAR",
    "EmailChangeList",
    "dashboard_context",
    "html_response",
    "page_context",
    "panel",
    "parts_of_requests",
    "quota_rows",
    "resume_page",
    "search",
]
