"""What the tests of the admin do on its pages, and what they read there."""

import re
from html import unescape
from typing import Any

from django.test import Client
from django.urls import reverse
from django.utils import timezone

from truncus_django.admin.action_runner import meant_field
from truncus_django.admin.actions import ACTIONS
from truncus_django.admin.outbox_panel import outbox_entries
from truncus_django.log.search_text import search_text
from truncus_django.models import Email, OutboxEntry
from truncus_django.states import State

LOG = "/admin/truncus_django/email/"
CHANGED = "It has changed since you were asked. Look at it, and choose again."


def page_of(email: Email) -> str:
    return reverse("admin:truncus_django_email_change", args=[email.pk])


def make(**fields: Any) -> Email:
    """Record an email that was delivered, but for ``fields``."""
    number = Email.objects.count()
    to = fields.pop("to", [f"customer-{number}@example.org"])
    subject = fields.pop("subject", f"Order {number}")
    return Email.objects.create(
        **{
            "state": State.DELIVERED,
            "message_id": f"msg-{number}",
            "to": to,
            "subject": subject,
            "search_text": search_text(to, subject, fields.get("metadata", {})),
            "from_email": "shop@example.com",
            "sent_at": timezone.now(),
            **fields,
        }
    )


def store(email: Email) -> None:
    """Let the outbox hold an email, as one that waits or as one that was tried."""
    is_waiting = email.state == State.PENDING
    OutboxEntry.objects.create(email=email, payload="{}", size=2, is_waiting=is_waiting)


def shown(response: Any) -> list[str]:
    """Return the subjects that a list shows."""
    assert response.status_code == 200, response
    return [email.subject for email in response.context["cl"].result_list]


def run(client: Client, action: str, *emails: Email, **data: Any) -> Any:
    """Run an action of the list, as far as its question."""
    chosen = [str(email.pk) for email in emails]
    return client.post(LOG, {"action": action, "_selected_action": chosen, "index": "0", **data})


def confirm(client: Client, action: str, *emails: Email, **data: Any) -> Any:
    """Run an action of the list and answer its question as its page does."""
    question = run(client, action, *emails, **data)
    assert 'name="confirmed"' in question.text
    return answer(client, question, **data)


def answer(client: Client, question: Any, **data: Any) -> Any:
    """Answer a question with yes, by the form on its page."""
    form = question.text.partition('<div id="content-main">')[2]
    fields: dict[str, Any] = {}
    for name, value in re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', form):
        fields.setdefault(name, []).append(unescape(value))
    url = question.wsgi_request.get_full_path()
    return client.post(url, {**fields, "confirmed": "Yes", **data})


def confirm_unasked(client: Client, action: str, *emails: Email, **data: Any) -> Any:
    """Confirm an action as if its question had just been about these emails, as they are."""
    chosen = list(Email.objects.filter(pk__in=[email.pk for email in emails]))
    [known] = [each for each in ACTIONS if each.name == action]
    meant = meant_field(known, chosen, outbox_entries(chosen))
    meant = meant or " ".join(email.pk.hex for email in emails)  # those that are deleted
    return run(client, action, *emails, **{"confirmed": "Yes", "meant": meant, **data})


def messages_of(client: Client, response: Any) -> str:
    """Return what the page that follows tells the user."""
    assert response.status_code == 302, response
    page = client.get(response["Location"])
    return " ".join(str(message) for message in page.context["messages"])
