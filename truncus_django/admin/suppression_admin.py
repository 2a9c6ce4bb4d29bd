"""Suppressed addresses in Django's admin: search, add, end and remove, with Django's history.

Every process of a project with the admin imports this module, so that what it shows and does is
imported when it is used, as in :mod:`.email_admin`.
"""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import reverse
from django.utils.functional import SimpleLazyObject
from django.utils.html import format_html
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from truncus_django.admin import display
from truncus_django.models import SuppressedAddress

if TYPE_CHECKING:
    from truncus_django.admin import suppression_views as views

    SuppressedAddressAdminBase = admin.ModelAdmin[SuppressedAddress]
    SuppressedAddressFormBase = forms.ModelForm[SuppressedAddress]
else:
    views = SimpleLazyObject(partial(import_module, "truncus_django.admin.suppression_views"))
    SuppressedAddressAdminBase = admin.ModelAdmin
    SuppressedAddressFormBase = forms.ModelForm


class SuppressedAddressForm(SuppressedAddressFormBase):
    """A new entry, or the note and the end of one that is there."""

    class Meta:
        help_texts: ClassVar = {
            "tenant_id": _("Leave it empty for the emails of all tenants."),
            "list_name": _("An unsubscribe list. Leave it empty for all emails."),
            "expires_at": _("Leave it empty if the address is suppressed for ever."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._is_new = kwargs.get("instance") is None
        super().__init__(*args, **kwargs)

    def clean_address(self) -> str:
        """Return the address in the form in which it is looked up."""
        return views.checked_address(self.cleaned_data["address"])

    def clean(self) -> dict[str, Any] | None:
        """Refuse an entry that is there."""
        if self._is_new and "address" in self.cleaned_data:
            known = SuppressedAddress.objects.filter(
                address=self.cleaned_data["address"],
                tenant_id=self.cleaned_data.get("tenant_id", ""),
                list_name=self.cleaned_data.get("list_name", ""),
            )
            if known.exists():
                raise ValidationError(
                    _("The address is there already, for this tenant and list. Change its entry.")
                )
        return self.cleaned_data

    def validate_constraints(self) -> None:
        """Leave it to :meth:`clean`, which looks into the log's own database."""


class SinceFilter(admin.DateFieldListFilter):
    """Offers spans of time, under a title that reads well."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = gettext("date")


class SuppressedAddressAdmin(SuppressedAddressAdminBase):
    """Shows addresses that must not be mailed, and lets users add, end and remove them."""

    form = SuppressedAddressForm
    list_display = (
        "whom",
        "tenant",
        "unsubscribe_list",
        "reason",
        "since",
        "until",
    )
    list_filter = ("reason", "source", ("created_at", SinceFilter))
    list_per_page = 50
    list_max_show_all = 200
    search_fields = ("address",)
    search_help_text = _("An address, or a part of one such as @example.com.")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    ordering = ("-created_at", "pk")
    actions = ("end_now", "export_as_csv")
    fields = (
        "address",
        "tenant",
        "unsubscribe_list",
        "reason",
        "source",
        "note",
        "email_link",
        "since",
        "expires_at",
    )
    readonly_fields = ("tenant", "unsubscribe_list", "reason", "source", "email_link", "since")

    class Media:
        css: ClassVar = {"all": ["truncus_django/admin.css"]}

    # The list ---------------------------------------------------------------------------------

    @admin.display(description=_("address"), ordering="address")
    def whom(self, entry: SuppressedAddress) -> str:
        """Return the address."""
        return display.address(entry.address)

    @admin.display(description=_("tenant"))
    def tenant(self, entry: SuppressedAddress) -> str:
        """Return the tenant that it holds for."""
        return entry.tenant_id or display.quiet(gettext("all"))

    @admin.display(description=_("list"))
    def unsubscribe_list(self, entry: SuppressedAddress) -> str:
        """Return the list that it holds for."""
        return entry.list_name or display.quiet(gettext("all emails"))

    @admin.display(description=_("since"), ordering="created_at")
    def since(self, entry: SuppressedAddress) -> Any:
        """Return when it began."""
        return display.moment(entry.created_at)

    @admin.display(description=_("until"), ordering="expires_at")
    def until(self, entry: SuppressedAddress) -> Any:
        """Return when it ends."""
        if entry.expires_at is None:
            return display.quiet(gettext("for ever"))
        return display.moment(entry.expires_at) if entry.is_in_force else gettext("over")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[SuppressedAddress], search_term: str
    ) -> tuple[QuerySet[SuppressedAddress], bool]:
        """Return what the search finds; a whole address by the index."""
        return views.search_addresses(queryset, search_term), False

    # An entry ---------------------------------------------------------------------------------

    @admin.display(description=_("email"))
    def email_link(self, entry: SuppressedAddress) -> str:
        """Return a link to the email that bounced, or was complained about."""
        if entry.email_id is None:
            return str(self.get_empty_value_display())
        name = f"{self.admin_site.name}:truncus_django_email_change"
        return format_html(
            '<a href="{}">{}</a>', reverse(name, args=[entry.email_id]), entry.email_id
        )

    def get_readonly_fields(
        self, request: HttpRequest, obj: SuppressedAddress | None = None
    ) -> "tuple[str, ...]":
        """Let only note and end of an entry change: another address is another entry."""
        return self.readonly_fields if obj is None else ("address", *self.readonly_fields)

    def get_fields(
        self, request: HttpRequest, obj: SuppressedAddress | None = None
    ) -> "tuple[str, ...]":
        """Return the fields; those of a new entry are what the user knows of it."""
        return self.fields if obj else ("address", "tenant_id", "list_name", "note", "expires_at")

    def save_model(
        self, request: HttpRequest, obj: SuppressedAddress, form: Any, change: bool
    ) -> None:
        """Write the entry into the log's own database."""
        if not change:
            obj.source = SuppressedAddress.Source.ADMIN
        obj.save(using=SuppressedAddress.objects.db)

    # Actions ----------------------------------------------------------------------------------

    @admin.action(
        description=_("Let the selected addresses be mailed again"), permissions=["change"]
    )
    def end_now(
        self, request: HttpRequest, queryset: QuerySet[SuppressedAddress]
    ) -> HttpResponse | None:
        """End entries, which stay in the table, once the user has confirmed."""
        return views.ask_then_end(self, request, queryset)

    @admin.action(description=_("Export the selected addresses as CSV"), permissions=["export"])
    def export_as_csv(
        self, request: HttpRequest, queryset: QuerySet[SuppressedAddress]
    ) -> StreamingHttpResponse:
        """Return them as a file, which ``truncus_suppress --import`` reads."""
        return views.export(self, request, queryset)

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may take addresses out of the admin."""
        return request.user.has_perm("truncus_django.export_suppressedaddress")
