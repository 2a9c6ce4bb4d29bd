"""What may be done with emails: each with its permission, a question first, and in the history."""

import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from truncus_django.admin.pages import page_basics
from truncus_django.admin.paginator import COUNT_LIMIT
from truncus_django.api.errors import (
    Conflict,
    EmailRefused,
    InvalidAnswer,
    MessageError,
    NotFound,
    TruncusError,
)
from truncus_django.mailers import get_mailer
from truncus_django.models import Email
from truncus_django.states import State

MOST_AT_ONCE = 50
"""Each is a request to Truncus; more are the business of ``truncus_sync``."""
MOST_OF_OUTBOX = 10_000
"""Of what is done in the database alone."""
_MOST_MESSAGES = 10
_ABOUT_ONE = (Conflict, EmailRefused, InvalidAnswer, MessageError, NotFound)
"""Errors that say nothing about the next email; after any other, it would fail as well."""


@dataclass(frozen=True)
class Action:
    """Something that may be done with emails.

    Attributes:
        name: of the action.
        permission: the codename of the permission that it takes.
        button: what is written on it.
        question: what is asked before.
    """

    name: str
    permission: str
    button: Any
    question: Any


@dataclass(frozen=True)
class Report:
    """What became of one email: a message for the user, and a line in its history if any."""

    level: int
    text: str | SafeString
    history: str = ""


SYNC = Action(
    "sync_now",
    "sync_email",
    gettext_lazy("Sync now"),
    gettext_lazy("Ask Truncus what has become of this?"),
)
RESEND = Action(
    "resend",
    "resend_email",
    gettext_lazy("Resend"),
    gettext_lazy("Send this once more, as a new email to the same recipients?"),
)
RETRY = Action(
    "retry",
    "retry_email",
    gettext_lazy("Try again now"),
    gettext_lazy(
        "Try again now to send this? What failed is sent as it was stored, attachments included."
    ),
)
WAS_SENT = Action(
    "decide_sent",
    "decide_email",
    gettext_lazy("Mark as sent"),
    gettext_lazy(
        "Mark this as sent? Look for it in the Truncus dashboard first: it will not be sent again."
    ),
)
SEND_NOW = Action(
    "decide_send",
    "decide_email",
    gettext_lazy("Mark as not sent and send it"),
    gettext_lazy(
        "Send this? Look for it in the Truncus dashboard first: if it is there, its recipients "
        "get it twice."
    ),
)
WAS_NOT_SENT = Action(
    "decide_not_sent",
    "decide_email",
    gettext_lazy("Mark as not sent"),
    gettext_lazy("Mark this as not sent? It counts as failed and is not sent."),
)
CANCEL = Action(
    "cancel",
    "cancel_email",
    gettext_lazy("Cancel"),
    gettext_lazy("Keep this from being sent? That cannot be undone."),
)
EXPORT = Action(
    "export_csv",
    "export_email",
    gettext_lazy("Export as CSV"),
    gettext_lazy(
        "Download this as a CSV file? It holds addresses and subjects, and no texts of emails."
    ),
)
ACTIONS = (WAS_SENT, SEND_NOW, WAS_NOT_SENT, RETRY, SYNC, RESEND, CANCEL, EXPORT)

if TYPE_CHECKING:
    from truncus_django.outbox.operations import OperationResult

    ActionsBase = admin.ModelAdmin[Email]
else:
    ActionsBase = object


class EmailActions(ActionsBase):
    """The actions of the list, which the buttons of an email's page use as well."""

    actions = (
        "sync_now",
        "resend",
        "retry",
        "cancel",
        "decide_sent",
        "decide_send",
        "decide_not_sent",
        "export_csv",
    )

    @admin.action(description=gettext_lazy("Sync now"), permissions=["sync"])
    def sync_now(self, request: HttpRequest, queryset: QuerySet[Email]) -> HttpResponse | None:
        """Ask Truncus about the chosen emails."""
        return self._ask_then_do(request, queryset, SYNC, _sync)

    @admin.action(description=gettext_lazy("Resend"), permissions=["resend"])
    def resend(self, request: HttpRequest, queryset: QuerySet[Email]) -> HttpResponse | None:
        """Send the chosen emails once more, each as a new one."""
        click = _uuid(request.POST.get("click"))
        words = request.POST.get("known_resends", "").split()
        known = [known_id for word in words if (known_id := _uuid(word)) is not None]

        def send_again(email: Email) -> Report:
            if click is None:
                return Report(messages.ERROR, _("Please confirm once more."))
            return _resend(email, click, known, self._url_of)

        return self._ask_then_do(request, queryset, RESEND, send_again)

    @admin.action(
        description=gettext_lazy("Cancel those that are scheduled or wait"), permissions=["cancel"]
    )
    def cancel(self, request: HttpRequest, queryset: QuerySet[Email]) -> HttpResponse | None:
        """Cancel those of the chosen emails that have yet to go out."""
        if "confirmed" not in request.POST:
            return self._ask_about_many(request, queryset, CANCEL)
        emails = self._some_of(request, queryset)
        if emails is None:
            return None
        waiting = [email for email in emails if email.state in _IN_OUTBOX]
        self._do_at_once(request, waiting, _cancel_in_outbox)
        others = [email.pk for email in emails if email.state not in _IN_OUTBOX]
        if others:
            self._ask_then_do(request, queryset.filter(pk__in=others), CANCEL, _cancel)
        return self._back(request, emails)

    @admin.action(description=gettext_lazy("Try again now"), permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Email]) -> HttpResponse | None:
        """Let the chosen emails of the outbox be tried again at once."""
        return self._ask_then_do_at_once(request, queryset, RETRY, _retry)

    @admin.action(description=gettext_lazy("Mark unknown ones as sent"), permissions=["decide"])
    def decide_sent(self, request: HttpRequest, queryset: QuerySet[Email]) -> HttpResponse | None:
        """Decide that the unknown ones of the chosen emails were sent."""
        return self._ask_then_do_at_once(request, queryset, WAS_SENT, _decide("sent"))

    @admin.action(
        description=gettext_lazy("Mark unknown ones as not sent and send them"),
        permissions=["decide"],
    )
    def decide_send(self, request: HttpRequest, queryset: QuerySet[Email]) -> HttpResponse | None:
        """Decide that the unknown ones of the chosen emails were not sent, and send them."""
        return self._ask_then_do_at_once(request, queryset, SEND_NOW, _decide("send"))

    @admin.action(description=gettext_lazy("Mark unknown ones as not sent"), permissions=["decide"])
    def decide_not_sent(
        self, request: HttpRequest, queryset: QuerySet[Email]
    ) -> HttpResponse | None:
        """Decide that the unknown ones of the chosen emails were not sent and will not be."""
        return self._ask_then_do_at_once(request, queryset, WAS_NOT_SENT, _decide("not sent"))

    @admin.action(description=gettext_lazy("Export as CSV"), permissions=["export"])
    def export_csv(self, request: HttpRequest, queryset: QuerySet[Email]) -> HttpResponse | None:
        """Download the chosen emails as a table."""
        if "confirmed" not in request.POST:
            return self._question(request, queryset, EXPORT)
        from truncus_django.admin.csv import csv_response

        self._note_export(request, queryset)
        return csv_response(queryset)  # type: ignore[return-value]

    # Who may ----------------------------------------------------------------------------------

    def has_sync_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may ask Truncus about emails."""
        return self._may(request, SYNC)

    def has_resend_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may send emails again."""
        return self._may(request, RESEND)

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may cancel emails that have yet to go out."""
        return self._may(request, CANCEL)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may have the outbox try again, and accounts go on."""
        return self._may(request, RETRY)

    def has_decide_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may decide whether unknown emails were sent."""
        return self._may(request, WAS_SENT)

    def has_export_permission(self, request: HttpRequest) -> bool:
        """Return whether the user may take emails out of the log."""
        return self._may(request, EXPORT)

    def actions_allowed(self, request: HttpRequest) -> list[Action]:
        """Return what the user may do."""
        return [action for action in ACTIONS if self._may(request, action)]

    def _may(self, request: HttpRequest, action: Action) -> bool:
        return request.user.has_perm(f"{self.opts.app_label}.{action.permission}")

    # The steps --------------------------------------------------------------------------------

    def _ask_then_do(
        self,
        request: HttpRequest,
        queryset: QuerySet[Email],
        action: Action,
        do: Callable[[Email], Report],
    ) -> HttpResponse | None:
        """Show the question; when it is confirmed, do it to each email and tell what became."""
        emails = list(queryset[: MOST_AT_ONCE + 1])
        if len(emails) > MOST_AT_ONCE:
            text = _("Choose at most %(count)d emails at once.") % {"count": MOST_AT_ONCE}
            self.message_user(request, text, messages.ERROR)
            return None
        if "confirmed" not in request.POST:
            return self._question(request, queryset, action, emails)
        reports = []
        for place, email in enumerate(emails):
            try:
                report = do(email)
            except Email.DoesNotExist:
                report = Report(messages.WARNING, _about(email, _("It was purged meanwhile.")))
            except TruncusError as error:
                report = Report(messages.ERROR, _about(email, str(error)))
                if not isinstance(error, _ABOUT_ONE):
                    reports += [report, *_left_out(len(emails) - place - 1)]
                    break
            reports.append(report)
            if report.history:
                self.log_change(request, email, report.history)
        self._tell(request, reports)
        return self._back(request, emails)

    def _ask_then_do_at_once(
        self,
        request: HttpRequest,
        queryset: QuerySet[Email],
        action: Action,
        do: "Callable[[Sequence[uuid.UUID]], Mapping[uuid.UUID, OperationResult]]",
    ) -> HttpResponse | None:
        """The same for what is done in the database alone: to all of them at once."""
        if "confirmed" not in request.POST:
            return self._ask_about_many(request, queryset, action)
        emails = self._some_of(request, queryset)
        if emails is None:
            return None
        self._do_at_once(request, emails, do)
        return self._back(request, emails)

    def _ask_about_many(
        self, request: HttpRequest, queryset: QuerySet[Email], action: Action
    ) -> HttpResponse:
        is_everything = request.POST.get("select_across") == "1"
        return self._question(request, queryset, action, None if is_everything else list(queryset))

    def _some_of(self, request: HttpRequest, queryset: QuerySet[Email]) -> list[Email] | None:
        """Return the chosen emails; where they are too many, say so and return ``None``."""
        chosen = queryset.only("id", "state", "message_id", "subject")
        emails = list(chosen[: MOST_OF_OUTBOX + 1])
        if len(emails) <= MOST_OF_OUTBOX:
            return emails
        text = _("Choose at most %(count)d emails at once.") % {"count": MOST_OF_OUTBOX}
        self.message_user(request, text, messages.ERROR)
        return None

    def _do_at_once(
        self,
        request: HttpRequest,
        emails: Sequence[Email],
        do: "Callable[[Sequence[uuid.UUID]], Mapping[uuid.UUID, OperationResult]]",
    ) -> None:
        """Do something to all of them, and tell how many came to what."""
        from truncus_django.admin import outbox_panel

        done = do([email.pk for email in emails]) if emails else {}
        for kind, number in outbox_panel.counted(done.values()).items():
            if len(emails) == 1:
                text: str = _about(emails[0], outbox_panel.told_of_one(kind))
            else:
                text = outbox_panel.told_of_many(kind, number)
            self.message_user(request, text, outbox_panel.level_of(kind))
            if kind.is_done:
                changed = [email for email in emails if done[email.pk] is kind]
                self._note_all(request, changed, outbox_panel.told_of_one(kind))

    def _note_all(self, request: HttpRequest, emails: Sequence[Email], text: str) -> None:
        """Write what was done to emails into the history of each."""
        LogEntry.objects.log_actions(
            user_id=request.user.pk or 0,
            queryset=emails,
            action_flag=CHANGE,
            change_message=text,
        )

    def _question(
        self,
        request: HttpRequest,
        queryset: QuerySet[Email],
        action: Action,
        emails: Sequence[Email] | None = None,
    ) -> HttpResponse:
        is_everything = request.POST.get("select_across") == "1" and emails is None
        if emails is None:
            shown = list(queryset[:_MOST_MESSAGES])
            count = queryset.order_by()[: COUNT_LIMIT + 1].count()
            ids = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
        else:
            shown, count = list(emails[:_MOST_MESSAGES]), len(emails)
            ids = [str(email.pk) for email in emails]
        context = {
            **page_basics(self, request),
            "title": action.button,
            "action": action,
            "emails": shown,
            "count": count,
            "more_count": count - len(shown),
            "is_over_limit": count > COUNT_LIMIT,
            "count_limit": COUNT_LIMIT,
            "ids": ids[:1] if is_everything else ids,
            "is_everything": is_everything,
            "checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "click": uuid.uuid4(),
            "from_page": request.POST.get("from_page", ""),
            "back_url": self._url_of(shown[0])
            if shown and request.POST.get("from_page")
            else request.get_full_path(),
            **(_about_resends(emails or shown) if action is RESEND else {}),
        }
        return TemplateResponse(request, "admin/truncus_django/email/confirm.html", context)

    def _tell(self, request: HttpRequest, reports: Sequence[Report]) -> None:
        for report in reports[:_MOST_MESSAGES]:
            self.message_user(request, report.text, report.level)
        rest = reports[_MOST_MESSAGES:]
        if not rest:
            return
        failed = sum(report.level >= messages.WARNING for report in rest)
        text = _("And %(count)d more, of which %(failed)d with trouble.") % {
            "count": len(rest),
            "failed": failed,
        }
        self.message_user(request, text, messages.WARNING if failed else messages.SUCCESS)

    def _back(self, request: HttpRequest, emails: Sequence[Email]) -> HttpResponse:
        if request.POST.get("from_page") and emails:
            return HttpResponseRedirect(self._url_of(emails[0]))
        return HttpResponseRedirect(request.get_full_path())

    def _note_export(self, request: HttpRequest, queryset: QuerySet[Email]) -> None:
        """Write into the history who took what out of the log."""
        few = list(queryset.only("id", "state", "message_id")[:2])
        one = few[0] if len(few) == 1 else None
        if one is not None:
            self.log_change(request, one, _("Exported as CSV."))
            return
        count = queryset.order_by()[: COUNT_LIMIT + 1].count()
        shown = f"> {COUNT_LIMIT}" if count > COUNT_LIMIT else str(count)
        LogEntry.objects.create(
            user_id=request.user.pk or 0,
            content_type_id=ContentType.objects.get_for_model(Email).pk,
            object_id=None,
            object_repr=_("%(count)s emails") % {"count": shown},
            action_flag=CHANGE,
            change_message=_("Exported as CSV."),
        )

    def _url_of(self, email: Email) -> str:
        return reverse(f"{self.admin_site.name}:truncus_django_email_change", args=[email.pk])


# What is done to one email -----------------------------------------------------------------------


def _sync(email: Email) -> Report:
    if not email.message_id:
        return Report(messages.WARNING, _about(email, _("Truncus has given it no id.")))
    before = email.state
    _ask(email)
    state = State(email.state).label
    if email.state == before:
        text = _("Truncus was asked; still %(state)s.") % {"state": state}
    else:
        text = _("Truncus was asked; now %(state)s.") % {"state": state}
    return Report(messages.SUCCESS, _about(email, text), text)


def _resend(
    email: Email, click: uuid.UUID, known: Collection[uuid.UUID], url_of: Callable[[Email], str]
) -> Report:
    from truncus_django.admin.resend import Outcome, resend, why_not_resendable

    why_not = why_not_resendable(email)
    if why_not:
        return Report(messages.WARNING, _about(email, why_not))
    done = resend(email, click=click, known=known)
    new = done.record
    link = format_html('<a href="{}">{}</a>', url_of(new), new.message_id or new.pk) if new else ""
    if done.outcome is Outcome.SENT_BEFORE:
        text = _("Was sent again before, and not now:")
        return Report(messages.INFO, format_html("{} {}", _about(email, text), link))
    if done.outcome is Outcome.AMBIGUOUS:
        text = _(
            "May have been sent again before, as the answer was lost, and was not sent now. Look "
            "for its recipient in the Truncus dashboard, then choose “Resend” again if it is "
            "missing:"
        )
        return Report(messages.WARNING, format_html("{} {}", _about(email, text), link))
    if new is None:
        return Report(messages.SUCCESS, _about(email, _("Sent again.")), _("Sent again."))
    return Report(
        messages.SUCCESS,
        format_html("{} {}", _about(email, _("Sent again:")), link),
        _("Sent again as %(id)s.") % {"id": new.pk},
    )


def _cancel(email: Email) -> Report:
    if email.state != State.SCHEDULED or not email.message_id:
        return Report(messages.WARNING, _about(email, _("It is not scheduled.")))
    try:
        get_mailer(email.mailer).client.cancel(email.message_id)
    except Conflict:
        _ask(email)
        text = _("Truncus does not cancel it any more; now %(state)s.") % {
            "state": State(email.state).label
        }
        return Report(messages.WARNING, _about(email, text))
    from truncus_django.log.transitions import EmailUpdate, advance_emails

    advance_emails([EmailUpdate(email.pk, State.CANCELLED)], ["state", "reason"])
    email.refresh_from_db()
    return Report(messages.SUCCESS, _about(email, _("Cancelled.")), _("Cancelled."))


_IN_OUTBOX = (State.PENDING, State.SENDING)


def _cancel_in_outbox(email_ids: Sequence[uuid.UUID]) -> "Mapping[uuid.UUID, OperationResult]":
    from truncus_django.outbox import operations

    return operations.cancel(email_ids)


def _retry(email_ids: Sequence[uuid.UUID]) -> "Mapping[uuid.UUID, OperationResult]":
    from truncus_django.outbox import operations

    return operations.retry(email_ids)


def _decide(
    decision: str,
) -> "Callable[[Sequence[uuid.UUID]], Mapping[uuid.UUID, OperationResult]]":
    def decide(email_ids: Sequence[uuid.UUID]) -> "Mapping[uuid.UUID, OperationResult]":
        from truncus_django.outbox import operations

        return operations.decide(email_ids, operations.Decision(decision))

    return decide


def _ask(email: Email) -> None:
    """Ask Truncus about an email and learn from the answer."""
    message_id = str(email.message_id)
    details = get_mailer(email.mailer).client.get_email(message_id)
    from truncus_django.log.ingest import apply_details

    apply_details({message_id: details})
    email.refresh_from_db()


def _about(email: Email, text: str) -> SafeString:
    return format_html("<b>{}</b>: {}", email.subject or email.message_id or email.pk, text)


def _left_out(count: int) -> list[Report]:
    if count == 0:
        return []
    text = ngettext(
        "%(count)d email was left as it is.", "%(count)d emails were left as they are.", count
    )
    return [Report(messages.WARNING, text % {"count": count})]


def _about_resends(emails: Sequence[Email]) -> dict[str, Any]:
    """Return what the question about sending again tells, and what its confirmation carries."""
    from truncus_django.admin.resend import resends_of, what_is_lost

    earlier = resends_of(emails)
    ambiguous = {each.resend_of_id for each in earlier if each.state == State.UNKNOWN}
    shown = emails[:_MOST_MESSAGES]
    return {
        "lost": [(email, lost) for email in shown if (lost := what_is_lost(email))],
        "ambiguous": [email for email in shown if email.pk in ambiguous],
        "known_resends": " ".join(each.pk.hex for each in earlier),
    }


def _uuid(text: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(text or "")
    except ValueError:
        return None
