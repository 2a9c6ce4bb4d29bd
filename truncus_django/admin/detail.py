"""An email's page: what was sent, all its ids, and all its events."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from truncus_django.admin import display, outbox_panel
from truncus_django.admin.actions import buttons
from truncus_django.api.errors import AMBIGUOUS_HINT, hint_for
from truncus_django.models import Email, EmailEvent
from truncus_django.states import State

MOST_EVENTS = 200
"""Machines open some emails a thousand times."""

_ADVICE: Mapping[str, Any] = {
    State.UNKNOWN: gettext_lazy(
        "It is not known whether this email was sent: the answer from Truncus was lost. Look for "
        "the recipient in the Truncus dashboard. If the email is there, mark it as sent. If it is "
        "not, mark it as not sent, or send it."
    ),
    State.BOUNCED: gettext_lazy(
        "The recipient's server refused it. Ask for another address. Sending to this one again "
        "harms the reputation of your domain."
    ),
    State.COMPLAINED: gettext_lazy(
        "The recipient called it spam. Do not write to this address again without being asked."
    ),
}

_HANDED_OVER = gettext_lazy(
    "It is not known whether this email was sent: it was handed to the fallback mailer, and what "
    "came of that was lost. Look for it in the logs of that mailer. If it was sent, mark it as "
    "sent. If it was not, mark it as not sent, or send it."
)


@dataclass(frozen=True)
class Moment:
    """One line of the timeline."""

    at: datetime
    title: str
    kind: str
    reason: str = ""
    recipient: str = ""
    source: str = ""
    payload: str = field(default="", repr=False)

    @property
    def time(self) -> SafeString:
        """The time as the page shows it."""
        return display.moment(self.at)


def page_context(
    model_admin: "admin.ModelAdmin[Email]", request: HttpRequest, email: Email
) -> dict[str, Any]:
    """Return what the template of the page shows; 4 queries without those for permissions.

    If the email waits in the outbox, one more asks whether its account is paused.
    """
    known_events = EmailEvent.objects.filter(email=email).order_by("-occurred_at", "-id")
    events = list(known_events[: MOST_EVENTS + 1])
    linked = Email.objects.only("id", "state", "created_at").order_by("created_at")
    entry = outbox_panel.outbox_entries([email]).get(email.pk)
    return {
        "title": _("Email"),
        "subtitle": None,
        "original": email,
        "change": True,
        "email": email,
        "state": display.state_label(email.state),
        "sandbox": display.sandbox_label() if email.is_sandbox else "",
        "timeline": _timeline(email, events[:MOST_EVENTS]),
        "has_more_events": len(events) > MOST_EVENTS,
        "ids": _ids(email),
        "facts": list(_facts(email)),
        "outbox_facts": outbox_panel.facts(email, entry),
        "error": _error(email),
        "metadata": sorted(email.metadata.items()),
        "html_url": reverse(
            f"{model_admin.admin_site.name}:truncus_django_email_html", args=[email.pk]
        ),
        "resend_of": linked.filter(resends=email).first(),
        "resends": list(linked.filter(resend_of=email)),
        "buttons": buttons(request, email, entry),
        "may_delete": model_admin.has_delete_permission(request, email),
    }


# The parts --------------------------------------------------------------------------------------


def _timeline(email: Email, events: list[EmailEvent]) -> list[Moment]:
    """Return the events and the moments of the record, newest first."""
    known_events = {event.type for event in events}
    moments = [_from_event(event, names_recipient=len(email.recipients) > 1) for event in events]
    known = (
        (State.COMPLAINED, email.complained_at),
        (State.BOUNCED, email.bounced_at),
        (State.DELIVERED, email.delivered_at),
        (State.SENT, email.sent_at),
    )
    moments += [
        Moment(at, str(state.label), display.KINDS[state])
        for state, at in known
        if at is not None and state not in known_events
    ]
    moments.append(Moment(email.created_at, _("recorded"), "quiet"))
    return sorted(moments, key=lambda moment: moment.at, reverse=True)


def _from_event(event: EmailEvent, *, names_recipient: bool) -> Moment:
    kind = {"opened": "good", "clicked": "good"}.get(event.type) or display.KINDS.get(event.type)
    return Moment(
        at=event.occurred_at,
        title=str(State(event.type).label) if event.type in State else event.type,
        kind=kind or "quiet",
        reason=event.reason,
        recipient=event.recipient if names_recipient else "",
        source=str(EmailEvent.Source(event.source).label)
        if event.source in EmailEvent.Source
        else "",
        payload=json.dumps(event.payload, indent=2, ensure_ascii=False) if event.payload else "",
    )


def _ids(email: Email) -> list[tuple[str, str]]:
    ids = [
        (_("Our id"), str(email.pk)),
        (_("Truncus id"), email.message_id or ""),
        (_("Global id"), email.global_message_id),
        (_("Provider's id"), email.provider_message_id),
        (_("Idempotency key"), email.idempotency_key),
    ]
    return [(name, value) for name, value in ids if value]


def _facts(email: Email) -> Iterator[tuple[str, list[Any]]]:
    """Yield names and values of other facts, each value on a line of its own."""
    yes_or_no = {True: _("yes"), False: _("no"), None: _("as the account says")}
    facts: list[tuple[str, Any]] = [
        (_("From"), [email.from_email] if email.from_email else []),
        (_("To"), email.to),
        (_("Cc"), email.cc),
        (_("Bcc"), email.bcc),
        (_("Redirected to"), email.redirected_to),
        (_("Left out, as suppressed"), email.suppressed),
        (_("Unsubscribe list"), email.unsubscribe_list),
        (_("Tenant"), email.tenant_id),
        (_("Mailer"), email.mailer),
        (_("Fallback mailer"), [email.sent_by, email.reason] if email.sent_by else []),
        (_("Template"), email.template_id),
        (_("To be sent at"), email.send_at and display.moment(email.send_at)),
        (_("Opens"), _engagement(email.open_count, email.first_opened_at, email.last_opened_at)),
        (_("Clicks"), str(email.click_count)),
        (_("Opens tracked"), yes_or_no[email.track_opens]),
        (_("Clicks tracked"), yes_or_no[email.track_clicks]),
        (_("Requests"), str(email.attempts) if email.attempts else ""),
        (_("Place in its batch"), "" if email.batch_index is None else str(email.batch_index + 1)),
        (_("Somebody was forgotten"), email.forgotten_at and display.moment(email.forgotten_at)),
        (_("Next sync"), email.next_sync_at and display.moment(email.next_sync_at)),
    ]
    for name, value in facts:
        if value:
            yield name, value if isinstance(value, list) else [value]


def _engagement(count: int, first: datetime | None, last: datetime | None) -> Any:
    if not count or first is None:
        return str(count)
    if count == 1 or last is None or last == first:
        return format_html("{} · {}", count, display.moment(first))
    return format_html("{} · {} – {}", count, display.moment(first), display.moment(last))


def _error(email: Email) -> dict[str, Any] | None:
    """Return what went wrong, and what to do about it."""
    bad = email.state in {State.BOUNCED, State.COMPLAINED, State.REJECTED, State.FAILED}
    if not (bad or email.error or email.state == State.UNKNOWN):
        return None
    hint = hint_for(email.error_code) or hint_for(email.reason) or ""
    text = email.error or email.reason
    is_handed_over = email.state == State.UNKNOWN and email.sent_by
    for advice in (hint, AMBIGUOUS_HINT):  # shown below; meant for developers
        text = text.replace(advice, "").strip()
    return {
        "code": email.error_code,
        "text": text,
        "advice": hint or (_HANDED_OVER if is_handed_over else _ADVICE.get(email.state, "")),
    }
