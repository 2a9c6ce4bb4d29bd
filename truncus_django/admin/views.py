"""What the pages of the log are made of; imported when the first of them is shown."""

from truncus_django.admin.actions import ACTIONS
from truncus_django.admin.changelist import EmailChangeList
from truncus_django.admin.dashboard import dashboard_context
from truncus_django.admin.detail import page_context
from truncus_django.admin.html_preview import html_response
from truncus_django.admin.outbox_panel import panel, parts_of_requests, waiting_cell
from truncus_django.admin.quota_panel import quota_rows
from truncus_django.admin.resume import resume_page

__all__ = [
    "ACTIONS",
    "EmailChangeList",
    "dashboard_context",
    "html_response",
    "page_context",
    "panel",
    "parts_of_requests",
    "quota_rows",
    "resume_page",
    "waiting_cell",
]
