"""The actions on emails, in the list and on the page of an email.

To add an action, add a row to :data:`ACTIONS` and, above it, the functions that the row names.
"""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from truncus_django.admin import resend
from truncus_django.admin.action_runner import (
    MAX_REQUESTS,
    MAX_ROWS,
    RESULTS,
    Action,
    ActionRun,
    Question,
    Result,
    always_possible,
    ids_in,
    shortened,
)
from truncus_django.admin.csv import csv_response
from truncus_django.admin.pages import log_change_without_object
from truncus_django.admin.paginator import COUNT_LIMIT
from truncus_django.api.errors import MessageError
from truncus_django.forget.forgetting import Forgetting
from truncus_django.forget.person import Person
from truncus_django.log.one_email import ask_about, cancel_scheduled
from truncus_django.models import Email, OutboxEntry
from truncus_django.outbox import operations
from truncus_django.outbox.operations import Decision, OperationResult
from truncus_django.sending.forgotten import FORGOTTEN
from truncus_django.states import NEVER_SENT_STATES, OUTBOX_STATES, State


def _always(email: Email, entry: OutboxEntry | None) -> bool:
    return True


def _told(result: OperationResult) -> str:
    return str(RESULTS[result].text)


def _versions(
    emails: Sequence[Email], entries: Mapping[uuid.UUID, OutboxEntry]
) -> dict[uuid.UUID, str]:
    """Return what tells whether emails were sent, perhaps, or forgotten since a question."""
    return {email.pk: _version(email, entries.get(email.pk)) for email in emails}


def _version(email: Email, entry: OutboxEntry | None) -> str:
    if email.state in OUTBOX_STATES:
        return "waits"
    # Whoever is forgotten may stand in a stored payload alone, which gets another size.
    stored = "" if entry is None else f"{entry.created_at.timestamp():.6f}/{entry.size}"
    is_forgotten = email.forgotten_at is not None
    return f"{email.state}/{email.attempts}/{stored}/{is_forgotten:d}"


def _versions_with_resends(
    emails: Sequence[Email], entries: Mapping[uuid.UUID, OutboxEntry]
) -> dict[uuid.UUID, str]:
    versions = _versions(emails, entries)
    for each in _sent_again(emails):
        if each.resend_of_id is not None:
            versions[each.resend_of_id] += f"/{each.pk.hex}"
    return versions


def _sent_again(emails: Sequence[Email]) -> list[Email]:
    """Return the resends of emails that were sent, are to be sent, or may have been sent."""
    return [each for each in resend.resends_of(emails) if each.state not in NEVER_SENT_STATES]


def _ask_about_sending(
    emails: Sequence[Email], entries: Mapping[uuid.UUID, OutboxEntry]
) -> Question:
    """Warn of emails that were sent as other ones, by “Resend”."""
    again = {each.resend_of_id for each in _sent_again(emails)}
    text = _("“%(subject)s” was sent again before, as another email: its recipients get it twice.")
    subjects = [shortened(email.subject) for email in emails if email.pk in again]
    return Question([text % {"subject": subject} for subject in subjects])


# Marking an ambiguous email -----------------------------------------------------------------------


def _is_unknown(email: Email, entry: OutboxEntry | None) -> bool:
    return email.state == State.UNKNOWN


def _why_not_decided(email: Email, entry: OutboxEntry | None) -> str:
    return "" if _is_unknown(email, entry) else _("It is known whether it was sent.")


def _why_not_sent_now(email: Email, entry: OutboxEntry | None) -> str:
    why_not = _why_not_decided(email, entry)
    return why_not or (_told(OperationResult.NOT_STORED) if entry is None else "")


def _decide(decision: Decision) -> Callable[[ActionRun, QuerySet[Email]], None]:
    return lambda run, emails: run.in_database(
        emails, lambda ids, find_changed: operations.decide(ids, decision, find_changed)
    )


# Trying again -------------------------------------------------------------------------------------


def _can_be_retried(email: Email, entry: OutboxEntry | None) -> bool:
    return not _why_not_retried(email, entry)


def _why_not_retried(email: Email, entry: OutboxEntry | None) -> str:
    batch = None if entry is None else entry.batch
    result = operations.result_of_retry(email, entry, batch, now=time.time())
    if result is OperationResult.DOES_NOT_APPLY:
        return _("It is neither waiting nor failed.")
    return resend.why_not_readable(email) if result.is_done else _told(result)


def _retry(run: ActionRun, emails: QuerySet[Email]) -> None:
    run.in_database(emails, operations.retry)


# Asking Truncus -----------------------------------------------------------------------------------


def _why_not_synced(email: Email, entry: OutboxEntry | None) -> str:
    return "" if email.message_id else _("Truncus has given it no id.")


def _sync(run: ActionRun, emails: QuerySet[Email]) -> None:
    run.one_by_one(list(emails[:MAX_REQUESTS]), _sync_one)


def _sync_one(email: Email) -> Result:
    before = email.state
    ask_about(email)
    state = {"state": email.get_state_display()}
    if email.state == before:
        return Result(_("Truncus was asked. Still %(state)s.") % state)
    return Result(_("Truncus was asked. Now %(state)s.") % state)


# Sending again ------------------------------------------------------------------------------------


def _why_not_resent(email: Email, entry: OutboxEntry | None) -> str:
    if email.state == State.UNKNOWN and entry is not None:
        return _told(OperationResult.NEEDS_DECISION)
    return resend.why_not_resendable(email, is_stored=entry is not None)


def _ask_about_resends(
    emails: Sequence[Email], entries: Mapping[uuid.UUID, OutboxEntry]
) -> Question:
    earlier = resend.resends_of(emails)
    ambiguous = {each.resend_of_id for each in earlier if each.state == State.UNKNOWN}
    warnings = []
    for email in emails:
        if email.state == State.UNKNOWN:
            text = _(
                "“%(subject)s” may have been sent: the answer was lost. Look for it in the Truncus "
                "dashboard first."
            )
            warnings.append(text % {"subject": shortened(email.subject)})
        lost = [] if email.pk in entries else resend.what_is_lost(email)
        if lost:
            text = _("“%(subject)s” is sent without what the log does not store: %(lost)s.")
            warnings.append(text % {"subject": shortened(email.subject), "lost": ", ".join(lost)})
        if email.pk in ambiguous:
            text = _(
                "“%(subject)s” may have been sent again before: the answer was lost. Look for its "
                "recipient in the Truncus dashboard first."
            )
            warnings.append(text % {"subject": shortened(email.subject)})
    # One that was not sent may be by the time the question is answered.
    known = " ".join(each.pk.hex for each in earlier if each.state not in NEVER_SENT_STATES)
    return Question(warnings, {"click": str(uuid.uuid4()), "known_resends": known})


def _resend(run: ActionRun, emails: QuerySet[Email]) -> None:
    click = ids_in(run.request.POST.get("click", ""))
    if len(click) != 1:
        run.model_admin.message_user(run.request, _("Please confirm again."), messages.ERROR)
        return
    known = ids_in(run.request.POST.get("known_resends", ""))
    queued: list[Email] = []

    def resend_one(email: Email) -> Result:
        done = resend.resend(email, click=click[0], known=known, find_changed=run.find_changed)
        return _resend_result(done, run.url_of, queued)

    # In the order of locks: with ATOMIC_REQUESTS they are held to the end.
    run.one_by_one(list(emails.order_by("pk")[:MAX_REQUESTS]), resend_one)
    if queued:
        run.warn_if_unattended()


def _resend_result(
    done: resend.Resend, url_of: Callable[[uuid.UUID], str], queued: list[Email]
) -> Result:
    text, level = _("Sent again."), messages.SUCCESS
    if done.outcome is resend.Outcome.CHANGED:
        return RESULTS[OperationResult.CHANGED]
    if done.outcome is resend.Outcome.SENT_BEFORE:
        text, level = _("Was already sent again, and not sent now."), messages.INFO
    elif done.outcome is resend.Outcome.AMBIGUOUS:
        text, level = (
            _(
                "May have been sent again before: the answer was lost. It was not sent now. Look "
                "for its recipient in the Truncus dashboard. If it is missing, choose “Resend” "
                "again."
            ),
            messages.WARNING,
        )
    elif done.record is not None and done.record.state in OUTBOX_STATES:
        text = _("Queued to be sent.")
        queued.append(done.record)
    if done.record is None:
        return Result(text, level)
    url = url_of(done.record.pk)
    return Result(format_html('{} <a href="{}">{}</a>', text, url, done.record.pk), level)


# Cancelling ---------------------------------------------------------------------------------------


def _can_be_cancelled(email: Email, entry: OutboxEntry | None) -> bool:
    return email.state in {*OUTBOX_STATES, State.SCHEDULED}


def _why_not_cancelled(email: Email, entry: OutboxEntry | None) -> str:
    if email.state == State.SCHEDULED:
        return _why_not_synced(email, entry)
    batch = None if entry is None else entry.batch
    result = operations.result_of_cancel(email, entry, batch, now=time.time())
    if email.state not in OUTBOX_STATES or result is OperationResult.DOES_NOT_APPLY:
        return _("It is neither scheduled nor waiting.")
    return "" if result.is_done else _told(result)


def _why_too_many_to_cancel(emails: QuerySet[Email]) -> str:
    """Return why none of them is cancelled, rather than half of them."""
    scheduled = emails.filter(state=State.SCHEDULED, message_id__isnull=False).order_by()
    if scheduled[: MAX_REQUESTS + 1].count() <= MAX_REQUESTS:
        return ""
    return ngettext(
        "Choose at most %(count)d scheduled email at once: each takes a request to Truncus.",
        "Choose at most %(count)d scheduled emails at once: each takes a request to Truncus.",
        MAX_REQUESTS,
    ) % {"count": MAX_REQUESTS}


def _cancel(run: ActionRun, emails: QuerySet[Email]) -> None:
    """Cancel emails of the outbox in the database, and scheduled ones with Truncus."""
    others = list(emails.exclude(state__in=OUTBOX_STATES).defer("text_body", "html_body"))
    run.in_database(emails.filter(state__in=OUTBOX_STATES), lambda ids, _: operations.cancel(ids))
    run.one_by_one(others, _cancel_one)


def _cancel_one(email: Email) -> Result:
    if not cancel_scheduled(email):
        text = _("Truncus can no longer cancel it. Now %(state)s.")
        return Result(text % {"state": email.get_state_display()}, messages.WARNING)
    return RESULTS[OperationResult.CANCELLED]


# Exporting ----------------------------------------------------------------------------------------


def _export(run: ActionRun, emails: QuerySet[Email]) -> HttpResponseBase:
    text = _("Exported as CSV.")
    count = emails.order_by()[: COUNT_LIMIT + 1].count()
    if count == 1:
        run.model_admin.log_change(run.request, emails[0], text)
    else:
        shown = f"> {COUNT_LIMIT}" if count > COUNT_LIMIT else str(count)
        emails_text = ngettext("%(count)s email", "%(count)s emails", count) % {"count": shown}
        log_change_without_object(run.request, emails_text, text)
    return csv_response(emails)


# Forgetting ---------------------------------------------------------------------------------------


def _recipients_of(email: Email) -> list[str]:
    """Return who can be forgotten; the sender is this site, which stands in most other emails."""
    return [each for each in dict.fromkeys(email.recipients) if each and each != FORGOTTEN]


def _has_somebody(email: Email, entry: OutboxEntry | None) -> bool:
    return bool(_recipients_of(email))


def _why_nobody_is_forgotten(email: Email, entry: OutboxEntry | None) -> str:
    return "" if _has_somebody(email, entry) else _("It names nobody who could be forgotten.")


def _ask_whom_to_forget(
    emails: Sequence[Email], entries: Mapping[uuid.UUID, OutboxEntry]
) -> Question:
    addresses = [address for email in emails[:1] for address in _recipients_of(email)]
    warnings = [
        _(
            "This removes the address, and the texts of all emails to or from it, from the log, "
            "the outbox and this admin's history. Emails that wait are left as they are until "
            "they are finished. A suppressed address stays suppressed. This can take minutes."
        )
    ]
    return Question(warnings, choices=addresses)


def _forget(run: ActionRun, emails: QuerySet[Email]) -> None:
    email, chosen = emails.first(), run.request.POST.get("choice", "")
    if email is None or chosen not in _recipients_of(email):
        run.model_admin.message_user(run.request, _("Choose whom to forget."), messages.ERROR)
        return
    try:
        person = Person(chosen)
    except MessageError:
        text = _("The address is malformed, so that nobody can be found by it.")
        run.model_admin.message_user(run.request, text, messages.ERROR)
        return
    found = Forgetting(person=person).run()
    done = ngettext(
        "Removed the address from %(count)d email.",
        "Removed the address from %(count)d emails.",
        found.changed,
    )
    run.tell([email], Result(done % {"count": found.changed}))
    if found.left:
        text = ngettext(
            "%(count)d email is left as it is until it is finished.",
            "%(count)d emails are left as they are until they are finished.",
            found.left,
        )
        run.model_admin.message_user(run.request, text % {"count": found.left}, messages.WARNING)


# The table ----------------------------------------------------------------------------------------

ACTIONS: Sequence[Action] = (
    Action(
        name="decide_sent",
        permission="decide_email",
        button=gettext_lazy("Mark as sent"),
        label=gettext_lazy("Mark unknown ones as sent"),
        question=ngettext_lazy(
            "Mark this email as sent? Look for it in the Truncus dashboard first: it will not be "
            "sent again.",
            "Mark these %(count)d emails as sent? Look for them in the Truncus dashboard first: "
            "they will not be sent again.",
            "count",
        ),
        confirm=ngettext_lazy(
            "Mark %(count)d email as sent", "Mark %(count)d emails as sent", "count"
        ),
        limit=MAX_ROWS,
        has_button=_is_unknown,
        why_not=_why_not_decided,
        run=_decide(Decision.SENT),
        versions=_versions,
    ),
    Action(
        name="decide_send",
        permission="decide_email",
        button=gettext_lazy("Mark as not sent and send it"),
        label=gettext_lazy("Mark unknown ones as not sent and send them"),
        question=ngettext_lazy(
            "Send this email? Look for it in the Truncus dashboard first: if it is there, its "
            "recipients get it twice.",
            "Send these %(count)d emails? Look for them in the Truncus dashboard first: the "
            "recipients of those that are there get them twice.",
            "count",
        ),
        confirm=ngettext_lazy("Send %(count)d email", "Send %(count)d emails", "count"),
        limit=MAX_ROWS,
        has_button=_is_unknown,
        why_not=_why_not_sent_now,
        run=_decide(Decision.SEND),
        versions=_versions_with_resends,
        ask=_ask_about_sending,
    ),
    Action(
        name="decide_not_sent",
        permission="decide_email",
        button=gettext_lazy("Mark as not sent"),
        label=gettext_lazy("Mark unknown ones as not sent"),
        question=ngettext_lazy(
            "Mark this email as not sent? It counts as failed and will not be sent.",
            "Mark these %(count)d emails as not sent? They count as failed and will not be sent.",
            "count",
        ),
        confirm=ngettext_lazy(
            "Mark %(count)d email as not sent", "Mark %(count)d emails as not sent", "count"
        ),
        limit=MAX_ROWS,
        has_button=_is_unknown,
        why_not=_why_not_decided,
        run=_decide(Decision.NOT_SENT),
        versions=_versions,
    ),
    Action(
        name="retry",
        permission="retry_email",
        button=gettext_lazy("Try again now"),
        label=gettext_lazy("Try again now"),
        question=ngettext_lazy(
            "Try to send this email again now? It is sent as it was stored, attachments included.",
            "Try to send these %(count)d emails again now? They are sent as they were stored, "
            "attachments included.",
            "count",
        ),
        confirm=ngettext_lazy(
            "Try %(count)d email again now", "Try %(count)d emails again now", "count"
        ),
        limit=MAX_ROWS,
        has_button=_can_be_retried,
        why_not=_why_not_retried,
        run=_retry,
        versions=_versions_with_resends,
        ask=_ask_about_sending,
    ),
    Action(
        name="sync_now",
        permission="sync_email",
        button=gettext_lazy("Sync now"),
        label=gettext_lazy("Sync now"),
        question=ngettext_lazy(
            "Ask Truncus for the present state of this email?",
            "Ask Truncus for the present states of these %(count)d emails?",
            "count",
        ),
        confirm=ngettext_lazy("Sync %(count)d email", "Sync %(count)d emails", "count"),
        limit=MAX_REQUESTS,
        has_button=_always,
        why_not=_why_not_synced,
        run=_sync,
    ),
    Action(
        name="resend",
        permission="resend_email",
        button=gettext_lazy("Resend"),
        label=gettext_lazy("Resend"),
        question=ngettext_lazy(
            "Send this email again, as a new email to the same recipients?",
            "Send these %(count)d emails again, as new emails to the same recipients?",
            "count",
        ),
        confirm=ngettext_lazy("Resend %(count)d email", "Resend %(count)d emails", "count"),
        limit=MAX_REQUESTS,
        has_button=_always,
        why_not=_why_not_resent,
        run=_resend,
        versions=_versions,
        ask=_ask_about_resends,
        looks_at_bodies=True,
    ),
    Action(
        name="cancel",
        permission="cancel_email",
        button=gettext_lazy("Cancel sending"),
        label=gettext_lazy("Cancel those that are scheduled or waiting"),
        question=ngettext_lazy(
            "Cancel this email, so that it is not sent?",
            "Cancel these %(count)d emails, so that they are not sent?",
            "count",
        ),
        # "Cancel" could be taken for the way back.
        confirm=ngettext_lazy(
            "Do not send %(count)d email", "Do not send %(count)d emails", "count"
        ),
        limit=MAX_ROWS,
        has_button=_can_be_cancelled,
        why_not=_why_not_cancelled,
        why_too_many=_why_too_many_to_cancel,
        run=_cancel,
    ),
    Action(
        name="export_csv",
        permission="export_email",
        button=gettext_lazy("Export as CSV"),
        label=gettext_lazy("Export as CSV"),
        # Without their number, which is not known of more than the list counts.
        question=ngettext_lazy(
            "Download this email as a CSV file? The file holds addresses and subjects, but no "
            "bodies.",
            "Download these emails as a CSV file? The file holds addresses and subjects, but no "
            "bodies.",
            "count",
        ),
        confirm=ngettext_lazy("Export the email", "Export the emails", "count"),
        limit=None,
        has_button=_always,
        why_not=always_possible,
        run=_export,
    ),
    Action(
        name="forget",
        permission="forget_email",
        button=gettext_lazy("Forget a recipient"),
        label=gettext_lazy("Forget a recipient, in all emails"),
        question=gettext_lazy("Whom do you want to forget? This cannot be undone."),
        confirm=gettext_lazy("Forget the recipient in all emails"),
        limit=1,
        has_button=_has_somebody,
        why_not=_why_nobody_is_forgotten,
        run=_forget,
        ask=_ask_whom_to_forget,
    ),
)

_MAX_MAIN = 2
_MAIN: Mapping[str, Sequence[str]] = {
    State.PENDING: ("cancel", "retry"),
    State.SENDING: ("retry", "cancel"),
    State.UNKNOWN: ("decide_sent", "decide_send", "decide_not_sent"),
    State.SCHEDULED: ("cancel", "sync_now"),
    State.BOUNCED: ("sync_now", "resend"),
    State.COMPLAINED: ("sync_now",),
    **dict.fromkeys(NEVER_SENT_STATES, ("retry", "resend")),
}
"""State → the actions that somebody who opens an email in it is most likely to want."""


def allowed_actions(request: HttpRequest) -> list[Action]:
    """Return the actions that the user has the permission for."""
    return [action for action in ACTIONS if action.is_allowed(request)]


@dataclass(frozen=True, slots=True)
class Button:
    """A button on the page of an email.

    Attributes:
        name: that of its action.
        why_not: why it is disabled; the empty string if it is not.
    """

    name: str
    text: Any
    why_not: str


def buttons(request: HttpRequest, email: Email, entry: OutboxEntry | None) -> list[Button]:
    """Return the buttons on the page of an email."""
    return [
        Button(action.name, action.button, action.why_not(email, entry))
        for action in allowed_actions(request)
        if action.has_button(email, entry)
    ]


def main_buttons(email: Email, among: Sequence[Button]) -> list[Button]:
    """Return the buttons that the page shows outside its menu: two at most, enabled ones first."""
    wanted = _MAIN.get(email.state, ("resend", "sync_now"))
    found = [button for name in wanted for button in among if button.name == name]
    return sorted(found, key=lambda button: bool(button.why_not))[:_MAX_MAIN]
