"""The log in Django's admin: the list, its pages, and permissions.

Every process of a project with the admin imports this module. To keep start-up fast, its pages are
imported when the first one is shown: they bring requests along.
"""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import path
from django.utils.functional import SimpleLazyObject
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from truncus_django.admin import display
from truncus_django.admin.filters import (
    CreatedFilter,
    EngagementFilter,
    MailerFilter,
    StateFilter,
    TenantFilter,
)
from truncus_django.admin.pages import page_basics
from truncus_django.admin.paginator import LogPaginator
from truncus_django.models import Email

if TYPE_CHECKING:
    from django.contrib.admin.views.main import ChangeList

    from truncus_django.admin import views

    EmailAdminBase = admin.ModelAdmin[Email]
else:
    views = SimpleLazyObject(partial(import_module, "truncus_django.admin.views"))
    EmailAdminBase = admin.ModelAdmin


class EmailAdmin(EmailAdminBase):
    """Shows emails and their states. They cannot be added or changed here."""

    list_display = (
        "state_label",
        "sent",
        "recipients",
        "subject_line",
        "tenant",
        "engagement",
    )
    list_display_links = ("recipients", "subject_line")
    list_filter = (
        ("state", StateFilter),
        TenantFilter,
        MailerFilter,
        "is_sandbox",
        EngagementFilter,
        ("created_at", CreatedFilter),
    )
    list_per_page = 50
    list_max_show_all = 200
    search_fields = ("search_text",)  # views.search() looks for ids, too
    search_help_text = _(
        'An address, words of the subject, "a phrase of it", a value of the metadata, or any id.'
    )
    sortable_by = ("sent",)
    # All columns named: Django would add "-pk", which no index of MariaDB serves.
    ordering = ("-created_at", "pk")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions_selection_counter = True

    class Media:
        css: ClassVar = {"all": ["truncus_django/admin.css"]}

    # The actions ------------------------------------------------------------------------------

    @property
    def actions(self) -> list[Any]:  # type: ignore[override]  # late, to keep start-up fast
        """The actions of the list: one for each row of the table in ``actions.py``."""
        return [action.as_admin_action() for action in views.ACTIONS]

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> dict[str, Any]:
        """Return Django's actions, and those that the user has the permission for."""
        # Django has this argument since 6.1.
        location = {} if action_location is None else {"action_location": action_location}
        denied = {action.name for action in views.ACTIONS if not action.is_allowed(request)}
        found = super().get_actions(request, **location)
        return {name: action for name, action in found.items() if name not in denied}

    # The list ---------------------------------------------------------------------------------

    @admin.display(description=_("state"))
    def state_label(self, email: Email) -> SafeString:
        """Return the state as a coloured label, and the reason for it."""
        sandbox = display.sandbox_label() if email.is_sandbox else ""
        reason = display.reason(email)
        return format_html("{} {}{}", display.state_label(email.state), sandbox, reason)

    @admin.display(description=_("recipients"))
    def recipients(self, email: Email) -> SafeString:
        """Return the first recipient and how many more there are."""
        return display.recipients(email)

    @admin.display(description=_("subject"))
    def subject_line(self, email: Email) -> SafeString:
        """Return the subject, in its own direction of writing; the page may cut it off."""
        subject = display.subject(email)
        return format_html('<bdi class="truncus-cut" title="{0}">{0}</bdi>', subject)

    @admin.display(description=_("tenant"), empty_value="")
    def tenant(self, email: Email) -> SafeString:
        """Return the tenant as a small label."""
        if not email.tenant_id:
            return SafeString("")
        return format_html('<span class="truncus-tag" title="{0}">{0}</span>', email.tenant_id)

    @admin.display(description=_("engagement"), empty_value="")
    def engagement(self, email: Email) -> SafeString:
        """Return how often it was opened, and its links were clicked."""
        opens, clicks = email.open_count, email.click_count
        texts = []
        if opens:
            texts.append(ngettext("%(count)d open", "%(count)d opens", opens) % {"count": opens})
        if clicks:
            text = ngettext("%(count)d click", "%(count)d clicks", clicks)
            texts.append(text % {"count": clicks})
        return format_html_join(" ", "<span>{}</span>", ([each] for each in texts))

    @admin.display(description=_("time"), ordering="created_at")
    def sent(self, email: Email) -> SafeString:
        """Return when it was sent, will be sent or was written, or for how long it has waited."""
        waiting_cell: SafeString | None = getattr(email, "waiting_cell", None)  # by the list
        return display.when(email) if waiting_cell is None else waiting_cell

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> "type[ChangeList]":
        """Return the list that reads only the columns it shows."""
        return views.EmailChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Email], search_term: str
    ) -> tuple[QuerySet[Email], bool]:
        """Return what the search finds, without duplicates."""
        return views.search(queryset, search_term), False

    def get_paginator(self, request: HttpRequest, *args: Any, **kwargs: Any) -> LogPaginator:
        """Return what counts emails; those that are searched for less far."""
        is_search = bool(request.GET.get(views.SEARCH_VAR))
        return LogPaginator(*args, is_search=is_search, **kwargs)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list, or run an action on some of its emails."""
        outbox = views.panel(request) if request.method == "GET" else None
        context = {"title": gettext("Emails"), "outbox": outbox, **(extra_context or {})}
        return super().changelist_view(request, context)

    # An email --------------------------------------------------------------------------------

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show an email, its ids and all its events."""
        if request.method not in {"GET", "HEAD"}:
            return HttpResponseNotAllowed(["GET", "HEAD"])
        email = self.get_object(request, object_id)
        if not self.has_view_permission(request, email):
            raise PermissionDenied
        if email is None:
            return super().change_view(request, object_id, form_url)  # says that it is not there
        context = {
            **page_basics(self, request),
            **views.page_context(self, request, email),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/truncus_django/email/detail.html", context)

    def html_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Return an email's HTML, for the sandboxed frame on its page."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return views.html_response(self.get_object(request, object_id))

    # The dashboard ----------------------------------------------------------------------------

    def dashboard_view(self, request: HttpRequest) -> HttpResponse:
        """Show how many emails were sent, delivered, opened and bounced."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        outbox = views.panel(request)
        context = {
            **page_basics(self, request),
            **views.dashboard_context(request.GET),
            "quotas": views.quota_rows(None if outbox is None else outbox["health"].quotas),
            "outbox": outbox,
        }
        return TemplateResponse(request, "admin/truncus_django/email/dashboard.html", context)

    # The outbox -------------------------------------------------------------------------------

    def resume_view(self, request: HttpRequest) -> HttpResponse:
        """Let a paused account make requests again at once, after a question."""
        return views.resume_page(self, request)

    def get_urls(self) -> list[Any]:
        """Return Django's pages, the dashboard, the HTML preview and the page to resume sending."""
        view = self.admin_site.admin_view
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("dashboard/", view(self.dashboard_view), name=f"{name}_dashboard"),
            path("outbox/resume/", view(self.resume_view), name=f"{name}_resume"),
            path("<uuid:object_id>/html/", view(self.html_view), name=f"{name}_html"),
            *super().get_urls(),
        ]

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """Protect emails in requests of the outbox from deletion."""
        to_delete, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return list(to_delete), counts, lacking, [*protected, *views.parts_of_requests(objs)]

    # Permissions ------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Return ``False``: sending an email adds it."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Email | None = None) -> bool:
        """Return ``False``: a sent email does not change."""
        return False
