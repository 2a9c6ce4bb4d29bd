"""The actions on emails, in the list and on the page of an email.

To add an action, add a row to :data:`ACTIONS` and, above it, the functions that the row names.
"""

import uuid
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from truncus_django.admin import resend
from truncus_django.admin.action_runner import (
    MOST_REQUESTS,
    MOST_ROWS,
    RESULTS,
    Action,
    ActionRun,
    Question,
    Result,
)
from truncus_django.admin.csv import csv_response
from truncus_django.admin.outbox_panel import IN_OUTBOX, outbox_entries
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
from truncus_django.states import RESTARTABLE_STATES, State


def _always(email: Email, entry: OutboxEntry | None) -> bool:
    return True


def _nothing(email: Email, entry: OutboxEntry | None) -> str:
    return ""


# Marking an ambiguous email -----------------------------------------------------------------------


def _is_unknown(email: Email, entry: OutboxEntry | None) -> bool:
    return email.state == State.UNKNOWN


def _why_not_sent_now(email: Email, entry: OutboxEntry | None) -> str:
    return str(RESULTS[OperationResult.NOT_STORED].text) if entry is None else ""


def _decide(decision: Decision) -> Callable[[ActionRun, QuerySet[Email]], None]:
    operation = partial(operations.decide, decision=decision)
    return lambda run, emails: run.in_database(emails, operation)


# Trying again -------------------------------------------------------------------------------------


def _can_be_retried(email: Email, entry: OutboxEntry | None) -> bool:
    if entry is None or entry.is_waiting or email.state == State.UNKNOWN:
        return False
    if entry.batch is None:
        return email.state in RESTARTABLE_STATES
    return entry.batch.lease is None


def _retry(run: ActionRun, emails: QuerySet[Email]) -> None:
    run.in_database(emails, operations.retry)


# Asking Truncus -----------------------------------------------------------------------------------


def _why_not_synced(email: Email, entry: OutboxEntry | None) -> str:
    return "" if email.message_id else _("Truncus has given it no id.")


def _sync(run: ActionRun, emails: QuerySet[Email]) -> None:
    run.one_by_one(list(emails[:MOST_REQUESTS]), _sync_one)


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
        return str(RESULTS[OperationResult.NEEDS_DECISION].text)
    return resend.why_not_resendable(email, is_stored=entry is not None)


def _ask_about_resends(emails: Sequence[Email]) -> Question:
    earlier = resend.resends_of(emails)
    ambiguous = {each.resend_of_id for each in earlier if each.state == State.UNKNOWN}
    entries = outbox_entries(emails)
    warnings = []
    for email in emails:
        lost = [] if email.pk in entries else resend.what_is_lost(email)
        if lost:
            text = _("“%(subject)s” is sent without what the log does not store: %(lost)s.")
            warnings.append(text % {"subject": email.subject, "lost": ", ".join(lost)})
        if email.pk in ambiguous:
            text = _(
                "“%(subject)s” may have been sent again before: the answer was lost. Look for its "
                "recipient in the Truncus dashboard first."
            )
            warnings.append(text % {"subject": email.subject})
    known = " ".join(each.pk.hex for each in earlier)
    return Question(warnings, {"click": str(uuid.uuid4()), "known_resends": known})


def _resend(run: ActionRun, emails: QuerySet[Email]) -> None:
    click = _uuid(run.request.POST.get("click", ""))
    if click is None:
        run.model_admin.message_user(run.request, _("Please confirm again."), messages.ERROR)
        return
    words = run.request.POST.get("known_resends", "").split()
    known = [known_id for word in words if (known_id := _uuid(word)) is not None]
    do = partial(_resend_one, click=click, known=known, url_of=run.url_of)
    run.one_by_one(list(emails[:MOST_REQUESTS]), do)


def _resend_one(
    email: Email,
    *,
    click: uuid.UUID,
    known: Collection[uuid.UUID],
    url_of: Callable[[uuid.UUID], str],
) -> Result:
    done = resend.resend(email, click=click, known=known)
    text, level = _("Sent again."), messages.SUCCESS
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
    if done.record is None:
        return Result(text, level)
    url = url_of(done.record.pk)
    return Result(format_html('{} <a href="{}">{}</a>', text, url, done.record.pk), level)


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


# Cancelling ---------------------------------------------------------------------------------------


def _can_be_cancelled(email: Email, entry: OutboxEntry | None) -> bool:
    return email.state in {*IN_OUTBOX, State.SCHEDULED}


def _why_not_cancelled(email: Email, entry: OutboxEntry | None) -> str:
    if email.state == State.SCHEDULED and email.message_id:
        return ""
    if email.state not in IN_OUTBOX:
        return _("It is neither scheduled nor waiting.")
    if entry is None or (entry.batch is not None and entry.batch.lease is not None):
        return str(RESULTS[OperationResult.BEING_SENT].text)
    if entry.batch is not None and entry.batch.is_ambiguous:
        return str(RESULTS[OperationResult.AMBIGUOUS].text)
    return ""


def _cancel(run: ActionRun, emails: QuerySet[Email]) -> None:
    """Cancel emails of the outbox in the database, and scheduled ones with Truncus."""
    others = list(emails.exclude(state__in=IN_OUTBOX)[: MOST_REQUESTS + 1])
    run.in_database(emails.filter(state__in=IN_OUTBOX), operations.cancel)
    if len(others) > MOST_REQUESTS:
        run.refuse(MOST_REQUESTS)
    else:
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
        log_change_without_object(run.request, _("%(count)s emails") % {"count": shown}, text)
    return csv_response(emails)


# Forgetting ---------------------------------------------------------------------------------------


def _recipients_of(email: Email) -> list[str]:
    """Return who can be forgotten; the sender is this site, which stands in most other emails."""
    return [each for each in dict.fromkeys(email.recipients) if each and each != FORGOTTEN]


def _has_somebody(email: Email, entry: OutboxEntry | None) -> bool:
    return bool(_recipients_of(email))


def _ask_whom_to_forget(emails: Sequence[Email]) -> Question:
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
        "Forgot somebody in %(count)d email.",
        "Forgot somebody in %(count)d emails.",
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
        question=gettext_lazy(
            "Mark as sent? Look for it in the Truncus dashboard first: it will not be sent again."
        ),
        limit=MOST_ROWS,
        has_button=_is_unknown,
        why_not=_nothing,
        run=_decide(Decision.SENT),
    ),
    Action(
        name="decide_send",
        permission="decide_email",
        button=gettext_lazy("Mark as not sent and send it"),
        label=gettext_lazy("Mark unknown ones as not sent and send them"),
        question=gettext_lazy(
            "Send it? Look for it in the Truncus dashboard first: if it is there, its recipients "
            "get it twice."
        ),
        limit=MOST_ROWS,
        has_button=_is_unknown,
        why_not=_why_not_sent_now,
        run=_decide(Decision.SEND),
    ),
    Action(
        name="decide_not_sent",
        permission="decide_email",
        button=gettext_lazy("Mark as not sent"),
        label=gettext_lazy("Mark unknown ones as not sent"),
        question=gettext_lazy("Mark as not sent? It counts as failed and will not be sent."),
        limit=MOST_ROWS,
        has_button=_is_unknown,
        why_not=_nothing,
        run=_decide(Decision.NOT_SENT),
    ),
    Action(
        name="retry",
        permission="retry_email",
        button=gettext_lazy("Try again now"),
        label=gettext_lazy("Try again now"),
        question=gettext_lazy(
            "Try to send it again now? It is sent as it was stored, attachments included."
        ),
        limit=MOST_ROWS,
        has_button=_can_be_retried,
        why_not=_nothing,
        run=_retry,
    ),
    Action(
        name="sync_now",
        permission="sync_email",
        button=gettext_lazy("Sync now"),
        label=gettext_lazy("Sync now"),
        question=gettext_lazy("Ask Truncus for the present state?"),
        limit=MOST_REQUESTS,
        has_button=_always,
        why_not=_why_not_synced,
        run=_sync,
    ),
    Action(
        name="resend",
        permission="resend_email",
        button=gettext_lazy("Resend"),
        label=gettext_lazy("Resend"),
        question=gettext_lazy("Send it again, as a new email to the same recipients?"),
        limit=MOST_REQUESTS,
        has_button=_always,
        why_not=_why_not_resent,
        run=_resend,
        ask=_ask_about_resends,
    ),
    Action(
        name="cancel",
        permission="cancel_email",
        button=gettext_lazy("Cancel"),
        label=gettext_lazy("Cancel those that are scheduled or waiting"),
        question=gettext_lazy("Cancel it, so that it is not sent?"),
        limit=MOST_ROWS,
        has_button=_can_be_cancelled,
        why_not=_why_not_cancelled,
        run=_cancel,
    ),
    Action(
        name="export_csv",
        permission="export_email",
        button=gettext_lazy("Export as CSV"),
        label=gettext_lazy("Export as CSV"),
        question=gettext_lazy(
            "Download as a CSV file? It holds addresses and subjects, but no bodies."
        ),
        limit=None,
        has_button=_always,
        why_not=_nothing,
        run=_export,
    ),
    Action(
        name="forget",
        permission="forget_email",
        button=gettext_lazy("Forget a recipient"),
        label=gettext_lazy("Forget a recipient, in all emails"),
        question=gettext_lazy("Whom do you want to forget? This cannot be undone."),
        limit=1,
        has_button=_has_somebody,
        why_not=_nothing,
        run=_forget,
        ask=_ask_whom_to_forget,
    ),
)


def allowed_actions(request: HttpRequest) -> list[Action]:
    """Return the actions that the user has the permission for."""
    return [action for action in ACTIONS if action.is_allowed(request)]


def buttons(request: HttpRequest, email: Email, entry: OutboxEntry | None) -> list[dict[str, Any]]:
    """Return the buttons on the page of an email; a disabled one has a reason."""
    return [
        {"name": action.name, "text": action.button, "why_not": action.why_not(email, entry)}
        for action in allowed_actions(request)
        if action.has_button(email, entry)
    ]
