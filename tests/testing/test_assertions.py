"""What was sent is found by each criterion, wherever it went."""

import re
from datetime import timedelta

import pytest
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives, send_mail
from django.db import transaction
from django.test import TestCase, override_settings
from django.utils import timezone
from django.utils.functional import lazystr

from tests.testing.conftest import order
from truncus_django.api import retry
from truncus_django.api.errors import InvalidAddress
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, OutboxBatch
from truncus_django.outbox import operations
from truncus_django.testing import (
    SentAttachment,
    assert_email_sent,
    assert_no_email_sent,
    links_in,
    run_emulator,
    send_outbox,
    use_emulator,
)

MET = [
    pytest.param({}, id="anything"),
    pytest.param({"to": "ann@example.org"}, id="to"),
    pytest.param({"to": "ANN@Example.org"}, id="to in capitals"),
    pytest.param({"to": "Somebody <ann@example.org>"}, id="to with a name"),
    pytest.param({"to": "bob@bücher.example"}, id="to by IDN"),
    pytest.param({"to": "bob@xn--bcher-kva.example"}, id="to by IDN in ASCII"),
    pytest.param({"to": ["bob@bücher.example", "ann@example.org"]}, id="to all"),
    pytest.param({"to": ("ann@example.org", "bob@bücher.example")}, id="to all, a tuple"),
    pytest.param({"subject": "Your order 1"}, id="subject"),
    pytest.param({"subject": lazystr("Your order 1")}, id="lazy subject"),
    pytest.param({"subject": re.compile(r"order \d$")}, id="subject by pattern"),
    pytest.param({"from_email": "shop@example.com"}, id="sender"),
    pytest.param({"from_email": "Shop <SHOP@example.com>"}, id="sender with its name"),
    pytest.param({"text_contains": "Dear customer,\n\nyour order"}, id="text"),
    pytest.param({"text_contains": re.compile("^your", re.M)}, id="text by pattern"),
    pytest.param({"html_contains": "<p>Your <a"}, id="html"),
    pytest.param({"html_contains": re.compile("<a [^>]+>order</a>")}, id="html by pattern"),
    pytest.param({"link": "https://shop.example/orders/1/?utm=a&b=1"}, id="link of the html"),
    pytest.param({"link": "https://shop.example/orders/1/"}, id="link of the text"),
    pytest.param({"link": "/orders/1/"}, id="link by path"),
    pytest.param({"link": "/orders/1/?utm=a&b=1"}, id="link by path and query"),
    pytest.param({"link": re.compile(r"/orders/\d+/$")}, id="link by pattern"),
    pytest.param({"to": "ann@example.org", "subject": "Your order 1", "count": 1}, id="several"),
]
UNMET = [
    pytest.param({"to": "an@example.org"}, id="to"),
    pytest.param({"to": ["ann@example.org"]}, id="to all, one missing"),
    pytest.param({"to": ["ann@example.org", "bob@bücher.example", "eve@example.org"]}, id="to all"),
    pytest.param({"to": []}, id="to nobody"),
    pytest.param({"to": "cc@example.org"}, id="to, of one in cc"),
    pytest.param({"subject": "order 1"}, id="a part of the subject"),
    pytest.param({"subject": re.compile("Order")}, id="subject by pattern"),
    pytest.param({"from_email": "shop@example.org"}, id="sender"),
    pytest.param({"from_email": "Store <shop@example.com>"}, id="sender with another name"),
    pytest.param({"text_contains": "<p>"}, id="text"),
    pytest.param({"html_contains": "Dear customer"}, id="html"),
    pytest.param({"link": "/orders/"}, id="a part of a path"),
    pytest.param({"link": "/orders/1/?utm=b"}, id="link by path with another query"),
    pytest.param({"link": "/orders/1/#top"}, id="link by path with another fragment"),
    pytest.param({"link": "//shop.example/orders/1/"}, id="link without its scheme"),
    pytest.param({"link": "mailto:shop@example.com"}, id="link to an address"),
    pytest.param({"to": "ann@example.org", "subject": "Another"}, id="one of two"),
]


def to_both():
    return order(to_all=["Ann <ann@example.org>", "Bob@BÜCHER.example"], cc=["cc@example.org"])


@pytest.mark.parametrize("criteria", MET)
def test_an_email_is_found_by(criteria, send):
    send(to_both())

    assert assert_email_sent(**criteria).subject == "Your order 1"
    criteria = {name: value for name, value in criteria.items() if name != "count"}
    with pytest.raises(AssertionError, match=r"^1 email was sent that should not be:\n"):
        assert_no_email_sent(**criteria)


@pytest.mark.parametrize("criteria", UNMET)
def test_an_email_is_not_found_by(criteria, send):
    send(to_both())

    assert_no_email_sent(**criteria)
    with pytest.raises(AssertionError, match=r"^No email is as expected; 1 email was sent\.\n"):
        assert_email_sent(**criteria)


def test_nothing_sent(send):
    assert_no_email_sent()
    with pytest.raises(AssertionError, match=r"^No email was sent\.\n.*captureOnCommitCallbacks"):
        assert_email_sent()


def test_all_of_an_email_is_returned_alike(send):
    message = order(
        cc=["Eve <eve@example.org>"],
        bcc=["log@example.org"],
        reply_to=['"Ann, B." <help@example.com>', "b@example.com"],
        headers={"X-Order": "1"},
        attachments=[("terms.txt", "Terms", "text/plain"), ("a.pdf", b"%PDF", "application/pdf")],
        metadata={"order": 1},
        tenant_id="acme",
    )
    send(message)

    email = assert_email_sent()
    assert email.from_email == "Shop <shop@example.com>"
    assert email.to == ("Ann <ann@example.org>",)
    assert email.cc == ("Eve <eve@example.org>",)
    assert email.bcc == ("log@example.org",)
    assert email.reply_to == ('"Ann, B." <help@example.com>', "b@example.com")
    assert email.headers == {"X-Order": "1"}
    assert email.metadata == {"order": "1"}
    assert email.tenant_id == "acme"
    assert email.text == message.body
    assert email.html == message.alternatives[0].content
    assert email.attachments == (
        SentAttachment(
            filename="terms.txt", content_type='text/plain; charset="utf-8"', content=b"Terms"
        ),
        SentAttachment(filename="a.pdf", content_type="application/pdf", content=b"%PDF"),
    )
    assert (email.template_id, email.sandbox, email.send_at) == ("", False, None)


def test_a_template_its_variables_a_time_and_the_sandbox_are_returned_alike(send):
    message = TruncusMessage("Hi", to=["ann@example.org"], template_id="hi", variables={"a": 1})
    message.send_at, message.sandbox = "2100-01-01T00:00:00+00:00", True
    send(message)

    email = assert_email_sent(to="ann@example.org")
    assert (email.template_id, email.variables, email.sandbox) == ("hi", {"a": "1"}, True)
    assert email.send_at is not None
    assert email.send_at.isoformat() == "2100-01-01T00:00:00+00:00"


def test_repr_shows_no_content(send):
    send(order())

    shown = repr(assert_email_sent())
    assert shown.startswith("SentEmail(")
    assert not re.search("ann|shop|order|Dear", shown)


def test_of_several_the_newest_is_returned_and_all_count(send):
    send(order(1), order(2), order(3, to="bob@example.org"))

    assert assert_email_sent(to="ann@example.org", count=2).subject == "Your order 2"
    assert assert_email_sent().subject == "Your order 3"
    with pytest.raises(AssertionError, match=r"^1 expected, and 2 of 3 emails are as expected:"):
        assert_email_sent(to="ann@example.org", count=1)


def merged(**options):
    return TruncusMessage(
        "{{ name }}, your points",
        "Dear {{ name }}",
        to=["Ann <ann@example.org>", "bob@bücher.example"],
        html="<p>{{ name }}</p>",
        merge_global_data={"name": "customer"},
        merge_data={"ANN@example.org": {"name": "Ann & Co"}},
        **options,
    )


def test_merge_data_is_one_email_for_each_recipient(send):
    send(
        merged(
            metadata={"all": "1"},
            merge_metadata={"ann@example.org": {"own": "2"}},
            merge_headers={"ann@example.org": {"X-Own": "3"}},
        )
    )

    ann = assert_email_sent(to="ann@example.org", text_contains="Dear Ann & Co", count=1)
    assert (ann.to, ann.subject) == (("Ann <ann@example.org>",), "Ann & Co, your points")
    assert ann.html == "<p>Ann &amp; Co</p>"
    assert ann.metadata == {"all": "1", "own": "2"}
    assert ann.headers == {"X-Own": "3"}
    bob = assert_email_sent(to=["bob@bücher.example"], subject="customer, your points")
    assert (bob.metadata, bob.headers) == ({"all": "1"}, {})
    assert_email_sent(count=2)
    assert_no_email_sent(to="bob@bücher.example", text_contains="Ann")


def test_merge_data_for_a_template_is_in_its_variables(send):
    send(
        TruncusMessage(
            "Hi",
            to=["ann@example.org", "bob@example.org"],
            template_id="hi",
            merge_data={"ann@example.org": {"name": "Ann"}},
        )
    )

    assert assert_email_sent(to="ann@example.org").variables == {"name": "Ann"}
    assert assert_email_sent(to="bob@example.org").variables == {}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"merge_data": {"eve@example.org": {}}}, "not in 'to'"),
        ({"merge_data": {"ann@example.org": {"other": 1}}}, r"\{\{ name \}\}"),
    ],
)
def test_merge_data_that_truncus_would_refuse_is_told_of_emails_in_memory(options, why):
    mail.outbox = []
    TruncusMessage("{{ name }}", "Text", to=["ann@example.org"], **options).send()

    with pytest.raises(AssertionError, match=f"refused by Truncus: .*{why}"):
        assert_no_email_sent()


def test_emails_that_only_memory_takes_are_found():
    message = EmailMessage("", "", "Shop", ["ann@", ""], cc=["cc@example.org"])
    message.attachments = [42]
    mail.outbox = [message]

    email = assert_email_sent(subject="")
    assert (email.from_email, email.to) == ("Shop", ("ann@",))
    assert email.attachments == (SentAttachment(filename="", content_type="", content=b""),)
    assert_no_email_sent(to="ann@example.org")


def test_headers_of_a_message_that_stand_for_its_fields_are_read_as_truncus_reads_them(send):
    own = {"From": "Other <other@example.com>", "Reply-To": "r@example.com", "X-A": "b"}
    send(order(headers=own, reply_to=["x@example.com"]))

    email = assert_email_sent(from_email="other@example.com")
    assert (email.reply_to, email.headers) == (("r@example.com",), {"X-A": "b"})


def test_bytes_and_html_alone_are_read_in_memory():
    mail.outbox = []
    message = EmailMultiAlternatives("Hi", "<p>Hi</p>", to=["ann@example.org"])
    message.content_subtype = "html"
    message.attach_alternative("Hällo".encode(), "text/plain")
    mail.outbox = [message]

    assert assert_email_sent(html_contains="<p>Hi", text_contains="Hällo")


# Places -------------------------------------------------------------------------------------------


def test_the_emulator_in_use_is_the_innermost_and_then_the_outer_one():
    with run_emulator() as outer, run_emulator() as inner:
        with use_emulator(outer):
            order(1).send()
            with use_emulator(inner):
                assert_no_email_sent()
                order(2).send()
                assert assert_email_sent(count=1).subject == "Your order 2"
            assert assert_email_sent(count=1).subject == "Your order 1"
        assert_no_email_sent()


def test_memory_and_the_emulator_count_together(truncus_emulator):
    mail.outbox = [order(1)]
    order(2).send()

    assert assert_email_sent(count=2).subject == "Your order 2"


def test_a_refused_and_a_cancelled_email_were_not_sent(truncus_emulator):
    truncus_emulator.suppress("ann@example.org")
    send_mail("Hi", "Text", None, ["bob@example.org"])
    with pytest.raises(OSError, match="suppress"):
        order().send()

    assert_email_sent(to="bob@example.org", count=1)
    assert_no_email_sent(to="ann@example.org")


def test_an_email_whose_content_the_emulator_keeps_no_more_is_found_by_its_head(truncus_emulator):
    truncus_emulator.reset(keep=1)
    order(1).send()
    order(2).send()

    email = assert_email_sent(subject="Your order 1", to="ann@example.org")
    assert (email.text, email.html) == ("", "")
    with pytest.raises(ValueError, match="keep"):
        links_in(truncus_emulator.emails[0])


@pytest.fixture
def outbox(settings, db, truncus_emulator, monkeypatch):
    """The emulator; what fails is tried again so late that no busy machine gets to it."""
    monkeypatch.setattr(retry, "FIRST_BACKOFF_S", 60.0)
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox", "MAX_RETRIES": 0, "RECORD": True}
    return truncus_emulator


def test_an_email_counts_once_before_and_after_it_leaves_the_outbox(outbox):
    order().send()
    waiting = assert_email_sent(count=1)
    assert (waiting.message_id, waiting.email_pk) == (None, Email.objects.get().pk)

    send_outbox()

    sent = assert_email_sent(count=1)
    assert (sent.message_id, sent.email_pk) == (Email.objects.get().message_id, None)


@pytest.mark.parametrize("count", [1, 2])
def test_an_email_whose_answer_was_lost_counts_once(count, outbox):
    for number in range(count):
        order(number).send()
    outbox.faults.next("reset_after")
    send_outbox()

    assert outbox.accepted == count
    assert {email.state for email in Email.objects.all()} == {"sending"}
    assert_email_sent(count=count)


def test_an_email_that_could_not_be_sent_yet_counts(outbox):
    order().send()
    outbox.faults.next("reset_before")
    send_outbox()

    assert outbox.accepted == 0
    assert_email_sent(count=1)


def test_what_fails_waits_as_long_each_time(outbox):
    order().send()
    outbox.faults.next("reset_before")
    began = timezone.now()
    send_outbox()

    assert OutboxBatch.objects.get().due_at - began >= timedelta(seconds=retry.FIRST_BACKOFF_S)


def test_emails_that_failed_were_cancelled_rolled_back_or_retained_do_not_wait(outbox, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
    order(1).send()
    outbox.suppress("suppressed@example.org")
    order(2, to="suppressed@example.org").send()
    send_outbox()
    order(3).send()
    operations.cancel([Email.objects.get(subject="Your order 3").pk])
    with transaction.atomic():
        order(4).send()
        transaction.set_rollback(True)

    assert assert_email_sent(count=1).subject == "Your order 1"


def test_a_key_that_was_used_before_is_no_second_email(outbox):
    order(idempotency_key="order-1").send()
    send_outbox()
    order(idempotency_key="order-1").send()

    assert_email_sent(count=1)


def test_the_database_is_left_alone_without_an_outbox(truncus_emulator):
    # This test may not use it.
    order().send()

    assert_email_sent()
    with pytest.raises(AssertionError):
        assert_no_email_sent()


# Wrong use ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("criteria", "error", "text"),
    [
        ({"subject": 5}, TypeError, "subject must be a string or a compiled regular expression"),
        ({"text_contains": ["a"]}, TypeError, "text_contains must be a string"),
        ({"html_contains": re.compile(b"a")}, TypeError, "html_contains must be a string"),
        ({"link": 5}, TypeError, "link must be a string"),
        ({"to": 5}, InvalidAddress, "The address in 'to' is a int"),
        ({"to": "ann"}, InvalidAddress, "The address in 'to' has nothing before"),
        ({"to": "a@example.com, b@example.com"}, InvalidAddress, "each address as an item"),
        ({"from_email": "ann"}, InvalidAddress, "The address in 'from_email'"),
        ({"count": 0}, ValueError, r"assert_no_email_sent\(\) checks for none"),
        ({"recipient": "a@example.com"}, TypeError, "recipient"),
    ],
)
def test_wrong_arguments_are_told(criteria, error, text):
    with pytest.raises(error, match=text):
        assert_email_sent(**criteria)


class UnittestTests(TestCase):
    """The assertions need no pytest."""

    def test_memory(self):
        send_mail("Hi", "Text", None, ["ann@example.org"])
        assert_email_sent(to="ann@example.org", subject="Hi")
        with self.assertRaises(self.failureException):  # noqa: PT027  it needs no pytest
            assert_no_email_sent()

    def test_next_test_finds_nothing(self):
        assert_no_email_sent()

    def test_emulator(self):
        emulator = self.enterContext(run_emulator())
        self.enterContext(use_emulator(emulator))
        send_mail("Hi", "Text", None, ["ann@example.org"])
        assert assert_email_sent().message_id == emulator.emails[0].id

    def test_outbox(self):
        truncus = {"API_KEY": "tr_test_outbox", "DELIVERY": "outbox"}
        self.enterContext(override_settings(TRUNCUS=truncus))
        self.enterContext(use_emulator(self.enterContext(run_emulator())))
        assert_no_email_sent()
        send_mail("Hi", "Text", None, ["ann@example.org"])
        assert assert_email_sent(count=1).email_pk == Email.objects.get().pk
