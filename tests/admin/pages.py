"""What the tests of the admin do on its pages, and what they read there."""

from typing import Any

from django.test import Client
from django.urls import reverse
from django.utils import timezone

from truncus_django.models import Email
from truncus_django.states import State

LOG = "/admin/truncus_django/email/"


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
            "search_text": " ".join([*to, subject]).lower(),
            "from_email": "shop@example.com",
            "sent_at": timezone.now(),
            **fields,
        }
    )


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
    return answer(client, question, action, *emails, **data)


def answer(client: Client, question: Any, action: str, *emails: Email, **data: Any) -> Any:
    """Answer a question with yes."""
    hidden = question.context["asked"].hidden
    return run(client, action, *emails, **{"confirmed": "Yes", **hidden, **data})


def messages_of(client: Client, response: Any) -> str:
    """Return what the page that follows tells the user."""
    assert response.status_code == 302, response
    page = client.get(response["Location"])
    return " ".join(str(message) for message in page.context["messages"])
