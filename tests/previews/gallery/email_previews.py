"""A preview of each kind."""

from asyncio import CancelledError
from collections.abc import Sequence
from datetime import UTC, datetime
from email.mime.image import MIMEImage
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.mail import EmailMessage, EmailMultiAlternatives, send_mail, send_mass_mail
from django.db import transaction
from django.utils.safestring import mark_safe
from django.utils.translation import get_language, gettext, gettext_lazy

from truncus_django.backend import TruncusBackend
from truncus_django.message import TruncusMessage
from truncus_django.models import Email
from truncus_django.previews import EmailPreviews

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
ON_COMMIT: list[str] = []
"""What ran after a commit."""


def message(**options: Any) -> TruncusMessage:
    return TruncusMessage(
        options.pop("subject", "Your order"), "Thank you!", to=["ann@example.org"], **options
    )


class OrderPreviews(EmailPreviews):
    """What a customer hears of an order.

    This paragraph is not shown.
    """

    kind = "no preview"

    def confirmation(self) -> EmailMessage:
        """At once, <b>with</b> the invoice."""
        found = message(
            html='<h1>Thank you!</h1><p><a href="https://example.com/">Look</a></p>',
            cc=["cc@example.org"],
            bcc=["bcc@example.org"],
            reply_to=["orders@example.com"],
            headers={"X-Order": "42", "To": "ann@example.org"},
            metadata={"order": "42"},
            tenant_id="acme",
            send_at=datetime(2100, 1, 1, tzinfo=UTC),
            idempotency_key="order-42",
            esp_extra={"bcc": ["boss@example.org"], "stream": "orders"},
        )
        found.attach("invoice.pdf", b"%PDF-1.4", "application/pdf")
        return found

    def greeting(self) -> EmailMessage:
        return message(subject=f"{get_language()}: {gettext('Password')}")

    def with_default(self, number: int = 7, *rest: int, **more: int) -> EmailMessage:
        return message(subject=f"Number {number}")

    def with_argument(self, number: int) -> EmailMessage:
        raise AssertionError(number)

    def _helper(self) -> EmailMessage:
        raise AssertionError

    @property
    def address(self) -> str:
        raise AssertionError

    @staticmethod
    def static() -> EmailMessage:
        raise AssertionError


class _Base(EmailPreviews):
    def inherited(self) -> EmailMessage:
        return message()

    def replaced(self) -> EmailMessage:
        return message()


class InheritingPreviews(_Base):
    replaced = None  # type: ignore[assignment]


class SendingPreviews(EmailPreviews):
    """Previews that call code which sends."""

    def sends_one(self) -> None:
        send_mail("Sent by code", "Hello.", None, ["ann@example.org"])

    def sends_many(self) -> None:
        send_mass_mail(
            (f"Number {number}", "Hello.", None, ["ann@example.org"]) for number in (1, 2, 3)
        )

    def sends_and_returns(self) -> EmailMessage:
        send_mail("Sent by code", "Hello.", None, ["ann@example.org"])
        return message(subject="Returned")

    def returns_what_it_sent(self) -> EmailMessage:
        sent = message()
        sent.send()
        return sent


class WritingPreviews(EmailPreviews):
    def writes(self) -> EmailMessage:
        user = User.objects.create_user("ada")
        transaction.on_commit(lambda: ON_COMMIT.append("committed"))
        return message(subject=f"Hello {user.username}")

    def writes_elsewhere(self) -> EmailMessage:
        count = Email.objects.using(settings.TRUNCUS["DATABASE"]).bulk_create(
            [Email(subject="Hello")]
        )
        return message(subject=f"{len(count)} written")

    def writes_and_raises(self) -> EmailMessage:
        User.objects.create_user("ada")
        raise LookupError("after the write")


class FailingPreviews(EmailPreviews):
    def raises(self) -> EmailMessage:
        raise LookupError("</pre><script>alert(1)</script>")

    def returns_none(self) -> None:
        pass

    def returns_text(self) -> str:
        return "Thank you!"

    async def is_async(self) -> EmailMessage:
        return message()

    def queries_a_broken_transaction(self) -> EmailMessage:
        User.objects.create_user("ada")
        User.objects.create_user("ada")
        raise AssertionError


class HostilePreviews(EmailPreviews):
    html = ""

    def hostile(self) -> EmailMessage:
        tag = "<script>alert(1)</script><img src=x onerror=alert(1)>"
        found = EmailMultiAlternatives(tag, tag, to=[f'"{tag}" <a@example.com>'])
        found.extra_headers = {"X-Tag": tag}
        found.attach(f"{tag}.txt", "text", "text/plain")
        found.attach_alternative(f"<p>Shown</p>{tag}{type(self).html}", "text/html")
        return found

    def marked_as_safe(self) -> EmailMessage:
        """As templates are once they are rendered."""
        tag = mark_safe("<script>alert(1)</script>")
        found = message(subject=tag, html=tag, metadata={tag: tag}, headers={"X-Tag": tag})
        found.body = tag
        found.idempotency_key = tag
        found.esp_extra = {tag: {tag: [tag]}}
        found.attach(tag, "text", "text/plain")
        return found

    def marked_as_safe_and_unsendable(self) -> EmailMessage:
        found = self.marked_as_safe()
        found.to, found.cc = [], [mark_safe("<script>alert(1)</script>")]
        return found


class UnsendablePreviews(EmailPreviews):
    def without_recipient(self) -> EmailMessage:
        found = EmailMultiAlternatives("Nobody", "Thank you!")
        found.attach_alternative("<p>Seen</p>", "text/html")
        found.attachments = [("a.txt", object(), "text/plain")]
        return found

    def with_line_break(self) -> EmailMessage:
        return EmailMessage("Two\nlines", b"Thank you!", to=["ann@example.org"])


class NewsletterPreviews(EmailPreviews):
    is_bulk = True

    def digest(self) -> EmailMessage:
        return message()

    def merged(self) -> EmailMessage:
        found = message(subject="{{ name }}, your points", html="<p>{{ name }}</p>")
        found.to = ["ann@example.org", "bob@example.org"]
        found.merge_data = {"ann@example.org": {"name": "Ann & Co"}}
        found.merge_global_data = {"name": "customer"}
        found.merge_metadata = {"ann@example.org": {"customer": 7}}
        return found

    def merged_for_a_stranger(self) -> EmailMessage:
        found = self.merged()
        found.merge_data = {"eve@example.org": {"name": "Eve"}}
        return found

    def with_unsubscribe(self) -> EmailMessage:
        return message(headers={"list-unsubscribe": "<https://example.com/bye>"})


def names(group: type[EmailPreviews]) -> Sequence[str]:
    return group._preview_names()


class ImagePreviews(EmailPreviews):
    def inside(self) -> EmailMessage:
        found = message(html='<p>Hello <img alt="logo" src="cid:logo"></p>')
        image = MIMEImage(PNG, "png")
        image["Content-ID"] = "<logo>"
        found.attachments.append(image)  # Django 6 deprecates attach() for MIMEImage
        return found


class OddPreviews(EmailPreviews):
    def exits(self) -> EmailMessage:
        raise SystemExit(3)

    def is_cancelled(self) -> EmailMessage:
        raise CancelledError

    def half_a_character(self) -> EmailMessage:
        return message(subject="A \ud800 B", html="<p>\ud800")

    def half_a_character_in_an_error(self) -> EmailMessage:
        raise ValueError("A \ud800 B")

    def looks_at_what_it_sent(self) -> None:
        sent = message()
        TruncusBackend().send_messages([sent])
        assert sent.truncus_status is not None
        assert not sent.truncus_status.is_accepted

    def in_words_of_a_language(self) -> EmailMessage:
        return message(subject=gettext_lazy("Password"))
