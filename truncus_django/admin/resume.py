"""Letting a paused account of the outbox make requests again at once, after a question."""

from typing import TYPE_CHECKING

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext as _

from truncus_django.admin.outbox_panel import pause
from truncus_django.admin.pages import page_basics
from truncus_django.db.clock import Clock
from truncus_django.models import Email, database
from truncus_django.outbox import operations
from truncus_django.outbox.health import PausedAccount, paused_accounts

if TYPE_CHECKING:
    from truncus_django.admin.actions import EmailActions


def resume_page(model_admin: "EmailActions", request: HttpRequest) -> HttpResponse:
    """Show the question; when it is confirmed, let the account go on and tell so."""
    if request.method not in {"GET", "HEAD", "POST"}:
        return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
    given = request.POST if request.method == "POST" else request.GET
    log = reverse(f"{model_admin.admin_site.name}:truncus_django_email_changelist")
    paused = {account.account: account for account in paused_accounts(Clock(database()).now())}
    account = paused.get(given.get("account", ""))
    if account is None:
        model_admin.message_user(request, _("This account is no longer paused."), messages.INFO)
        return HttpResponseRedirect(log)
    if request.method != "POST":
        context = {
            **page_basics(model_admin, request),
            "title": _("Resume sending"),
            "account": account,
            "mailers": account.name,
            "pause": pause(account),
            "back_url": log,
        }
        return TemplateResponse(request, "admin/truncus_django/email/resume.html", context)
    if operations.resume(account.account):
        _note(request, account)
        text = _("Requests are made again.")
        model_admin.message_user(request, text, messages.SUCCESS)
    return HttpResponseRedirect(log)


def _note(request: HttpRequest, account: PausedAccount) -> None:
    """Write into the history who let which account go on."""
    LogEntry.objects.create(
        user_id=request.user.pk or 0,
        content_type_id=ContentType.objects.get_for_model(Email).pk,
        object_id=None,
        object_repr=_("Account of %(mailers)s") % {"mailers": account.name[:150]},
        action_flag=CHANGE,
        change_message=_("Went on before its pause ended."),
    )
