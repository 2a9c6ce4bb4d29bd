"""Letting a paused account of the outbox make requests again at once, after a question."""

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from truncus_django.admin import display
from truncus_django.admin.pages import log_change_without_object, page_basics
from truncus_django.db.clock import Clock
from truncus_django.models import Email, database
from truncus_django.outbox import operations
from truncus_django.outbox.health import PausedAccount, paused_accounts


def may_resume(request: HttpRequest) -> bool:
    """Return whether the user may let paused accounts make requests again."""
    return request.user.has_perm("truncus_django.retry_email")


def pause(account: PausedAccount) -> SafeString:
    """Return a sentence that tells until when an account is paused, and why."""
    if account.reason:
        text = _("The account of <b>{mailers}</b> is paused until {time}: {reason}")
    else:
        text = _("The account of <b>{mailers}</b> is paused until {time}.")
    time = display.moment(account.until)
    return format_html(text, mailers=account.name, time=time, reason=account.reason)


def resume_page(model_admin: "admin.ModelAdmin[Email]", request: HttpRequest) -> HttpResponse:
    """Show the question; when the user confirms, let the account make requests again."""
    if not model_admin.has_view_permission(request) or not may_resume(request):
        raise PermissionDenied
    if request.method not in {"GET", "HEAD", "POST"}:
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    given = request.POST if request.method == "POST" else request.GET
    log = reverse(f"{model_admin.admin_site.name}:truncus_django_email_changelist")
    paused = {account.account: account for account in paused_accounts(Clock(database()).now())}
    account = paused.get(given.get("account", ""))
    if account is not None and request.method != "POST":
        context = {
            **page_basics(model_admin, request),
            "title": _("Resume sending"),
            "account": account,
            "mailers": account.name,
            "pause": pause(account),
            "back_url": log,
        }
        return TemplateResponse(request, "admin/truncus_django/email/resume.html", context)
    if account is not None and operations.resume(account.account):
        about = _("Account of %(mailers)s") % {"mailers": account.name}
        log_change_without_object(request, about, _("Sending resumed before the pause ended."))
        model_admin.message_user(request, _("Sending resumed."), messages.SUCCESS)
    else:
        model_admin.message_user(request, _("This account is no longer paused."), messages.INFO)
    return HttpResponseRedirect(log)
