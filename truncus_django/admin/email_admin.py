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
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from truncus_django.admin import display
from truncus_django.admin.filters import EngagementFilter, MailerFilter, TenantFilter
from truncus_django.admin.pages import page_basics
from truncus_django.admin.paginator import LogPaginator
from truncus_django.admin.search import search
from truncus_django.models import Email
from truncus_django.states import State

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
        "recipients",
        "subject_line",
        "tenant",
        "opens",
        "clicks",
        "sent",
    )
    list_display_links = ("recipients", "subject_line")
    list_filter = (
        "state",
        TenantFilter,
        MailerFilter,
        "is_sandbox",
        EngagementFilter,
        "created_at",
    )
    list_per_page = 50
    list_max_show_all = 200
    search_fields = ("search_text",)  # search() looks for ids, too
    search_help_text = _("An address, words of the subject, or any id.")
    sortable_by = ("sent",)
    # All columns named: Django would add "-pk", which no index of MariaDB serves.
    ordering = ("-created_at", "pk")
    paginator = LogPaginator
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
        """Return the state as a coloured label."""
        label = display.state_label(email.state)
        return format_html("{} {}", label, display.sandbox_label()) if email.is_sandbox else label

    @admin.display(description=_("recipients"))
    def recipients(self, email: Email) -> SafeString:
        """Return the first recipient and how many more there are."""
        return display.recipients(email)

    @admin.display(description=_("subject"))
    def subject_line(self, email: Email) -> SafeString:
        """Return the subject, in its own direction of writing."""
        return format_html("<bdi>{}</bdi>", email.subject or gettext("(no subject)"))

    @admin.display(description=_("tenant"))
    def tenant(self, email: Email) -> SafeString:
        """Return the tenant as a small label."""
        if not email.tenant_id:
            return SafeString("")
        return format_html('<span class="truncus-tag">{}</span>', email.tenant_id)

    @admin.display(description=_("opens"))
    def opens(self, email: Email) -> SafeString:
        """Return how often it was opened."""
        return _count(email.open_count)

    @admin.display(description=_("clicks"))
    def clicks(self, email: Email) -> SafeString:
        """Return how often its links were clicked."""
        return _count(email.click_count)

    @admin.display(description=_("sent"), ordering="created_at")
    def sent(self, email: Email) -> SafeString:
        """Return when it was sent, will be sent or was tried, or for how long it has waited."""
        if email.state in {State.PENDING, State.SENDING}:
            return views.waiting_cell(email, getattr(email, "entry", None))
        if email.sent_at is not None:
            return display.moment(email.sent_at)
        if email.send_at is not None:
            return format_html(
                '<span class="truncus-none">{}</span> {}',
                gettext("for"),
                display.moment(email.send_at),
            )
        return format_html('<span class="truncus-none">{}</span>', display.moment(email.created_at))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> "type[ChangeList]":
        """Return the list that reads only the columns it shows."""
        return views.EmailChangeList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Email], search_term: str
    ) -> tuple[QuerySet[Email], bool]:
        """Return what the search finds, without duplicates."""
        return search(queryset, search_term), False

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


def _count(number: int) -> SafeString:
    kind = "truncus-count" if number else "truncus-none"
    return format_html('<span class="{}">{}</span>', kind, number)
