"""An email's page: what was sent, all its ids, and all its events."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from truncus_django.admin import display, outbox_panel
from truncus_django.admin.actions import buttons, main_buttons
from truncus_django.admin.reasons import explanation_of
from truncus_django.admin.resend import why_no_text
from truncus_django.admin.timeline import timeline
from truncus_django.api.errors import AMBIGUOUS_HINT, hint_for
from truncus_django.models import Email, EmailEvent
from truncus_django.states import CLICKED, OPENED, OUTBOX_STATES

MAX_EVENTS = 200
"""Machines open some emails a thousand times."""
_LONGEST_HEADING = 200
_LONGEST_NAME = 60


def page_context(
    model_admin: "admin.ModelAdmin[Email]", request: HttpRequest, email: Email
) -> dict[str, Any]:
    """Return what the template of the page shows; 4 queries without those for permissions.

    If the email waits in the outbox, :func:`~truncus_django.admin.outbox_panel.facts` makes more.
    """
    # The opens and clicks are cut off, and not what tells since when it is in its state.
    known_events = EmailEvent.objects.filter(email=email).alias(
        is_engagement=Q(type__in=(OPENED, CLICKED))
    )
    events = list(known_events.order_by("is_engagement", "-occurred_at", "-id")[: MAX_EVENTS + 1])
    linked = Email.objects.only("id", "state", "created_at").order_by("created_at")
    entry = outbox_panel.outbox_entries([email]).get(email.pk)
    all_buttons = buttons(request, email, entry)
    main = main_buttons(email, all_buttons)
    subject = display.subject(email)
    return {
        "title": display.in_one_line(subject, _LONGEST_NAME),
        "browser_title": _browser_title(email, subject),
        "heading": Truncator(subject).chars(_LONGEST_HEADING),
        "is_whole_subject": len(subject) <= _LONGEST_HEADING,
        "subtitle": None,
        "original": email,
        "change": True,
        "email": email,
        "state": display.state_label(email.state),
        "sandbox": display.sandbox_label() if email.is_sandbox else "",
        "timeline": timeline(email, events[:MAX_EVENTS]),
        "has_more_events": len(events) > MAX_EVENTS,
        "ids": _ids(email),
        "facts": list(_facts(email)),
        "outbox_facts": outbox_panel.facts(email, entry),
        "trouble": _trouble(email),
        "why_no_text": why_no_text(email, is_stored=entry is not None),
        "metadata": sorted(email.metadata.items()),
        "html_url": reverse(
            f"{model_admin.admin_site.name}:truncus_django_email_html", args=[email.pk]
        ),
        "resend_of": linked.filter(resends=email).first(),
        "resends": list(linked.filter(resend_of=email)),
        "buttons": all_buttons,
        "main_buttons": main,
        "more_buttons": [button for button in all_buttons if button not in main],
        "may_delete": model_admin.has_delete_permission(request, email),
    }


# The parts --------------------------------------------------------------------------------------


def _browser_title(email: Email, subject: str) -> str:
    """Return what tells this email from others in the tabs of a browser."""
    words = {
        "subject": display.in_one_line(subject, _LONGEST_NAME),
        "recipient": display.in_one_line(_first(email.recipients), _LONGEST_NAME),
    }
    return _("%(subject)s to %(recipient)s") % words if words["recipient"] else words["subject"]


def _first(recipients: list[str]) -> str:
    return recipients[0] if recipients else ""


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
        (pgettext("of an email", "From"), [email.from_email] if email.from_email else []),
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
        (_("Address removed"), email.forgotten_at and display.moment(email.forgotten_at)),
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


def _trouble(email: Email) -> dict[str, Any] | None:
    """Return what went wrong, what to do about it, and the error as it was reported."""
    found = explanation_of(email)
    if found is None:
        return None
    report = email.error or email.reason
    # Meant for developers, or for the command line.
    for hint in (hint_for(email.error_code), hint_for(email.reason), AMBIGUOUS_HINT):
        report = report.replace(hint or "", "").strip()
    code = email.error_code or (email.reason if " " not in email.reason else "")
    return {
        "is_waiting": email.state in OUTBOX_STATES,
        "text": found.text,
        "advice": found.advice,
        "report": "" if report == code else report,
        "code": code,
    }
