"""Suppressed addresses, on every path that an email can take."""

import contextlib
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.core import mail
from django.db import OperationalError, transaction
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.fallback import use_fallback
from tests.paths import PATHS, bare, delivery_of, recipients_in_requests, send_by
from truncus_django.api.errors import EmailRefused, MessageError, MessagesNotSent, TruncusError
from truncus_django.backend import TruncusBackend
from truncus_django.conf import ConfigurationError
from truncus_django.log.suppression import suppress
from truncus_django.message import TruncusMessage
from truncus_django.models import (
    Email,
    OutboxAccount,
    OutboxBatch,
    OutboxEntry,
    SuppressedAddress,
)
from truncus_django.sending import screening
from truncus_django.sending.breaker import forget_breakers
from truncus_django.signals import pre_send
from truncus_django.states import State
from truncus_django.testing import send_outbox

pytestmark = pytest.mark.django_db(transaction=True)

BASE_URL = "https://shop.example.com"


@pytest.fixture(autouse=True)
def _learns(settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "SUPPRESS": "learn"}


@pytest.fixture
def emulator(truncus_emulator, settings):
    own = {"RECORD": True, "STORE_BODIES": True, "REQUESTS_PER_SECOND": 0, "REQUESTS_PER_MINUTE": 0}
    own |= {"UNSUBSCRIBE_BASE_URL": BASE_URL}
    settings.TRUNCUS = {**settings.TRUNCUS, **own}
    return truncus_emulator


def message(*to, **options):
    to = list(to) or ["ann@example.net"]
    return TruncusMessage("Hello", "Text", "shop@example.com", to, html="<p>Text", **options)


def put(*addresses, **fields):
    suppress([SuppressedAddress(address=address, **fields) for address in addresses])


def reached(emulator):
    """Return the addresses of all whom requests named, whatever became of them."""
    return {bare(each) for each in recipients_in_requests(emulator)}


def test_a_suppressed_recipient_is_refused_before_any_request_and_recorded(emulator):
    put("ann@example.net", reason="hard_bounce")
    with pytest.raises(EmailRefused, match="hard bounce") as caught:
        message("Ann <ANN@Example.net>").send()
    assert "@" not in str(caught.value)
    assert emulator.requests == []
    record = Email.objects.get()
    assert (record.state, record.error_code) == (State.REJECTED, "recipient_suppressed")
    assert "hard bounce" in record.reason
    assert record.attempts == 0


def test_one_of_several_is_refused_by_default(emulator):
    put("ann@example.net")
    with pytest.raises(EmailRefused, match="ON_SUPPRESSED"):
        message("bob@example.net", "ann@example.net").send()
    assert emulator.requests == []


def test_drop_mails_the_others_and_says_so_in_the_record(emulator, configure):
    configure(ON_SUPPRESSED="drop")
    put("ann@example.net", "cy@example.net")
    message("bob@example.net", "Ann <ann@example.net>", cc=["cy@example.net"]).send()
    assert reached(emulator) == {"bob@example.net"}
    [email] = emulator.emails
    assert email.payload["to"] == "bob@example.net"
    assert "cc" not in email.payload
    record = Email.objects.get()
    assert record.to == ["bob@example.net", "Ann <ann@example.net>"]
    assert record.suppressed == ["Ann <ann@example.net>", "cy@example.net"]


def test_drop_says_so_in_the_record_of_the_outbox_too(emulator, configure):
    configure(ON_SUPPRESSED="drop", DELIVERY="outbox")
    put("ann@example.net")
    message("bob@example.net", "ann@example.net").send()
    assert send_outbox() == 1
    assert reached(emulator) == {"bob@example.net"}
    assert Email.objects.get().suppressed == ["ann@example.net"]


def test_drop_moves_nobody_into_the_place_of_the_recipient(emulator, configure):
    configure(ON_SUPPRESSED="drop")
    put("ann@example.net")
    with pytest.raises(EmailRefused, match="everybody in 'to'"):
        message("ann@example.net", bcc=["boss@example.net"]).send()
    assert emulator.requests == []


def test_one_in_a_list_costs_no_other_and_no_request(emulator):
    put("ann@example.net")
    with pytest.raises(MessagesNotSent):
        TruncusBackend().send_messages([message("bob@example.net"), message(), message("c@d.net")])
    assert emulator.request_counts == {("POST", "batch", 200): 1}
    assert reached(emulator) == {"bob@example.net", "c@d.net"}
    states = {email.to[0]: email.state for email in Email.objects.all()}
    assert states == {
        "bob@example.net": "delivered",
        "ann@example.net": "rejected",
        "c@d.net": "delivered",
    }


def test_a_list_of_none_but_suppressed_makes_no_request_and_loses_nothing(emulator, configure):
    put(*(f"customer-{number}@example.net" for number in range(150)))
    messages = [message(f"customer-{number}@example.net") for number in range(150)]
    with pytest.raises(MessagesNotSent, match="150 of 150"):
        TruncusBackend().send_messages(messages)
    assert emulator.requests == []
    assert Email.objects.filter(state=State.REJECTED).count() == 150


def test_who_was_suppressed_while_the_email_waited_is_not_mailed(emulator, configure):
    configure(DELIVERY="outbox")
    TruncusBackend().send_messages([message(), message("bob@example.net")])
    put("ann@example.net", reason="complaint")
    assert send_outbox() == 1
    assert reached(emulator) == {"bob@example.net"}
    assert sorted(Email.objects.values_list("state", flat=True)) == ["delivered", "rejected"]


def test_the_outbox_refuses_at_once_what_no_worker_may_send(emulator, configure):
    configure(DELIVERY="outbox")
    put("ann@example.net")
    bob = message("bob@example.net")
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages([message(), bob])
    [failure] = caught.value.failures
    assert isinstance(failure.error, EmailRefused)
    assert bob.truncus_status.status == "pending"
    assert send_outbox() == 1
    assert reached(emulator) == {"bob@example.net"}
    assert Email.objects.filter(state=State.REJECTED).count() == 1


def test_an_entry_holds_for_its_tenant_alone(emulator):
    put("ann@example.net", tenant_id="acme")
    message().send()
    message(tenant_id="other").send()
    with pytest.raises(EmailRefused):
        message(tenant_id="acme").send()
    put("bob@example.net")
    with pytest.raises(EmailRefused):
        message("bob@example.net", tenant_id="acme").send()


def test_an_entry_that_is_over_does_not_hold(emulator):
    put("ann@example.net", expires_at=timezone.now() - timedelta(seconds=1))
    message().send()
    put("ann@example.net")  # anew
    with pytest.raises(EmailRefused):
        message().send()


def test_a_list_s_entry_holds_for_emails_of_the_list_alone(emulator):
    put("ann@example.net", list_name="digest", reason="unsubscribed")
    message().send()
    message(unsubscribe="news").send()
    with pytest.raises(EmailRefused, match="unsubscribed"):
        message(unsubscribe="digest").send()


@pytest.mark.parametrize("given", ["ann@bücher.example", "ANN@XN--BCHER-KVA.example"])
def test_case_and_form_of_the_domain_do_not_matter(emulator, given):
    put("ann@xn--bcher-kva.example")
    with pytest.raises(EmailRefused):
        message(given).send()
    with pytest.raises(EmailRefused):
        message(esp_extra={"to": given}).send()
    message("joann@xn--bcher-kva.example").send()


def test_the_real_recipients_count_where_a_staging_site_redirects(emulator, configure):
    configure(REDIRECT_TO=["dev@example.com"])
    put("dev@example.com")
    message().send()
    assert reached(emulator) == {"dev@example.com"}
    put("ann@example.net")
    with pytest.raises(EmailRefused):
        message().send()


def test_the_record_of_a_redirect_names_nobody_who_was_left_out(emulator, configure):
    allowed = {"REDIRECT_TO": ["dev@example.com"], "ALLOW_RECIPIENTS": ["@ok.example"]}
    put("me@ok.example")
    for delivery in ("direct", "outbox"):
        configure(ON_SUPPRESSED="drop", DELIVERY=delivery, **allowed)
        message("bob@example.net", "me@ok.example").send()
        send_outbox()
        with pytest.raises(EmailRefused):
            message("me@ok.example", cc=["bob@example.net"]).send()
    assert reached(emulator) == {"dev@example.com"}
    told = Email.objects.values_list("state", "redirected_to")
    assert sorted(told) == [("delivered", ["dev@example.com"])] * 2 + [("rejected", [])] * 2


@pytest.mark.parametrize(
    "to", ["ann@example.net (x)", "team: ann@example.net;", "=?utf-8?q?ann=40example=2Enet?="]
)
def test_what_only_a_fallback_mailer_would_take_for_an_address_does_not_reach_it(
    emulator, settings, to
):
    put("ann@example.net")
    emulator.reset(revoked_keys=[settings.TRUNCUS["API_KEY"]])
    use_fallback(settings)
    with pytest.raises(TruncusError, match="'to'") as caught:
        message("bob@example.net", esp_extra={"to": [to]}).send()
    assert not caught.value.ambiguous
    assert mail.outbox == []


def test_off_looks_at_nothing(emulator, configure, count_queries):
    configure(SUPPRESS="off", RECORD=False)
    put("ann@example.net")
    with count_queries() as queries:
        message().send()
    assert queries == []
    assert reached(emulator) == {"ann@example.net"}


def test_a_batch_costs_one_query(emulator, configure, count_queries):
    configure(RECORD=False)
    with count_queries() as queries:
        TruncusBackend().send_messages([message(f"c{n}@example.net") for n in range(100)])
    assert len(queries) == 1
    with count_queries() as queries:
        message().send()
    assert len(queries) == 1


@pytest.mark.parametrize("value", ["learn", "manual"])
def test_without_the_app_nothing_is_sent_unscreened(emulator, configure, value):
    configure(RECORD=False, SUPPRESS=value)
    others = [name for name in django_settings.INSTALLED_APPS if name != "truncus_django"]
    with override_settings(INSTALLED_APPS=others):
        with pytest.raises(ConfigurationError, match=rf"SUPPRESS is '{value}'.*INSTALLED_APPS"):
            message().send()
        assert emulator.requests == []
        configure(SUPPRESS="off")
        message().send()
    assert len(emulator.emails) == 1


def test_a_missing_table_holds_back_emails_of_a_list_alone(emulator, monkeypatch, caplog):
    monkeypatch.setattr(SuppressedAddress._meta, "db_table", "truncus_nowhere")
    with transaction.atomic():
        message().send()
        with pytest.raises(MessageError, match="could not be looked up") as caught:
            message(unsubscribe="digest").send()
        assert Email.objects.count() == 2
    assert caught.value.retryable
    assert len(emulator.emails) == 1
    [line] = [each.message for each in caplog.records if "looked up" in each.message]
    assert "manage.py migrate" in line


@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_who_was_left_out_stays_so_if_the_table_is_gone_at_the_second_look(
    emulator, configure, monkeypatch, delivery
):
    configure(ON_SUPPRESSED="drop", DELIVERY=delivery)
    put("ann@example.net")
    looks = 0

    def once(addresses):
        nonlocal looks
        looks += 1
        if looks > 1:
            raise OperationalError("gone")
        return {"ann@example.net": [("", "", "complaint")]}

    monkeypatch.setattr(screening, "_entries", once)
    message("bob@example.net", "ann@example.net").send()
    send_outbox()
    assert looks > 1
    assert reached(emulator) == {"bob@example.net"}
    assert Email.objects.get().suppressed == ["ann@example.net"]


def test_the_outbox_tries_a_list_again_when_the_table_is_there(emulator, configure, monkeypatch):
    configure(DELIVERY="outbox")
    TruncusBackend().send_messages([message(unsubscribe="digest"), message("bob@example.net")])
    with monkeypatch.context() as patch:
        patch.setattr(SuppressedAddress._meta, "db_table", "truncus_nowhere")
        assert send_outbox() == 1
    assert reached(emulator) == {"bob@example.net"}
    OutboxBatch.objects.update(due_at=timezone.now())
    assert send_outbox() == 1
    assert reached(emulator) == {"bob@example.net", "ann@example.net"}


def test_a_request_whose_answer_was_lost_is_repeated_unchanged(emulator, configure):
    configure(DELIVERY="outbox")
    TruncusBackend().send_messages([message(), message("bob@example.net")])
    emulator.faults.next("reset_after")
    send_outbox()
    put("ann@example.net")
    OutboxBatch.objects.update(due_at=timezone.now())
    send_outbox()
    assert len(emulator.emails) == 2  # each once
    assert set(Email.objects.values_list("state", flat=True)) == {"delivered"}


@pytest.mark.parametrize("on_suppressed", ["error", "drop"])
@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_who_was_left_out_of_a_request_is_left_out_when_it_is_repeated(
    emulator, configure, delivery, on_suppressed
):
    configure(DELIVERY=delivery, ON_SUPPRESSED=on_suppressed, MAX_RETRIES=0)
    to_all = ["bob@example.net", "ann@example.net"]
    messages = [message(), message(*to_all), message("cy@example.net"), message("d@example.net")]
    if delivery == "outbox":
        TruncusBackend().send_messages(messages)
    put("ann@example.net")
    emulator.faults.next("reset_after")
    if delivery == "outbox":
        send_outbox()
        SuppressedAddress.objects.all().delete()  # a look at the table would let her in
        OutboxBatch.objects.update(due_at=timezone.now())
        send_outbox()
    else:
        with pytest.raises(MessagesNotSent) as caught:
            TruncusBackend().send_messages(messages)
        ambiguous = [each.error.ambiguous for each in caught.value.failures]
        dropped = on_suppressed == "drop"
        assert ambiguous == [False, dropped, True, True]
        again = messages[1:] if dropped else messages[2:]
        SuppressedAddress.objects.all().delete()
        assert TruncusBackend().send_messages(again) == len(again)
    first, second = emulator.requests
    assert first.body == second.body
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    expected = {"cy@example.net", "d@example.net"}
    if on_suppressed == "drop":
        expected.add("bob@example.net")
        record = Email.objects.get(search_text__contains="bob")
        assert record.to == to_all
        assert record.suppressed == ["ann@example.net"]
    assert reached(emulator) == expected
    assert len(emulator.emails) == len(expected)
    states = Email.objects.values_list("state", flat=True).order_by("state")
    accepted = ["delivered"] * len(expected)
    assert list(states) == accepted + ["rejected"] * (4 - len(expected))


def test_who_is_dropped_in_one_try_is_mailed_in_the_next_when_allowed_again(emulator, configure):
    configure(DELIVERY="outbox", ON_SUPPRESSED="drop")
    put("ann@example.net")
    message("bob@example.net", "ann@example.net").send()
    SuppressedAddress.objects.all().delete()
    assert send_outbox() == 1
    assert reached(emulator) == {"ann@example.net", "bob@example.net"}
    assert Email.objects.get().suppressed == []


def test_a_project_s_own_field_of_that_name_leaves_nobody_out(emulator, configure):
    for mode in ("learn", "off"):
        configure(SUPPRESS=mode)
        message(esp_extra={"suppressed_recipients": ["ann@example.net"]}).send()
    assert [email.payload["to"] for email in emulator.emails] == ["ann@example.net"] * 2
    assert all("suppressed_recipients" not in email.payload for email in emulator.emails)


def test_in_a_coroutine_it_holds_too(emulator, shared_database):
    put("ann@example.net")

    async def send():
        with pytest.raises(EmailRefused):
            message().send()
        with pytest.raises(EmailRefused):
            await message().asend()

    async_to_sync(send)()
    assert emulator.requests == []


# What teaches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("bounce@example.com", "hard_bounce"),
        ("bounce+no_mx_record@example.com", "hard_bounce"),
        ("bounce+mailbox_full@example.com", None),
        ("bounce+connection_timeout@example.com", None),
        ("suppressed@example.com", "blocked"),
    ],
)
@pytest.mark.parametrize("delivery", ["direct", "outbox"])
def test_answers_teach(emulator, configure, address, reason, delivery):
    # The SDK's answers come before the bounce, and name those who are blocked.
    emulator.reset(dialect="sdk" if reason == "blocked" else "manual")
    configure(DELIVERY=delivery)
    try:
        message(address, tenant_id="acme").send()
    except TruncusError:
        assert reason == "blocked"
    send_outbox()
    found = SuppressedAddress.objects.values_list("address", "reason", "tenant_id", "source")
    assert list(found) == ([(address, reason, "acme", "answer")] if reason else [])
    if reason:
        assert SuppressedAddress.objects.get().email == Email.objects.get()


def test_manual_learns_nothing(emulator, configure):
    configure(SUPPRESS="manual")
    message("bounce@example.com").send()
    assert not SuppressedAddress.objects.exists()
    put("ann@example.net")
    with pytest.raises(EmailRefused):
        message().send()


@pytest.mark.parametrize("options", [{"sandbox": True}, {"cc": ["b@example.com"]}])
def test_what_says_nothing_about_one_recipient_teaches_nothing(emulator, options):
    message("bounce@example.com", **options).send()
    assert not SuppressedAddress.objects.exists()


def test_a_redirected_email_teaches_nothing(emulator, configure):
    configure(REDIRECT_TO=["bounce@example.com"])
    message().send()
    assert not SuppressedAddress.objects.exists()


# On every path ------------------------------------------------------------------------------------

BAD = {"bad@example.net", "bad@xn--bcher-kva.example", "cc-bad@example.net", "bcc-bad@example.net"}
ADDRESSES = st.sampled_from(
    ["ann@example.net", "Bob <bob@example.net>", "Bad <BAD@example.net>", "bad@bücher.example"]
)


def add_bad(message, payload, **kwargs):
    payload["cc"] = [*(payload.get("cc") or []), "cc-bad@example.net"]
    message.bcc = [*message.bcc, "bcc-bad@example.net"]


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    to=st.lists(ADDRESSES, min_size=1, max_size=3, unique=True),
    cc=st.lists(ADDRESSES, max_size=2),
    extra=st.sampled_from([None, {"to": ["bad@example.net"]}, {"bcc": "Bad@example.net"}]),
    with_receiver=st.booleans(),
    path=st.sampled_from(PATHS),
    on_suppressed=st.sampled_from(["error", "drop"]),
    is_late=st.booleans(),
    guarded=st.booleans(),
    is_down=st.booleans(),
)
def test_no_path_leads_around_it(
    emulator, settings, to, cc, extra, with_receiver, path, on_suppressed, is_late, guarded, is_down
):
    """Nor does the fallback mailer, which sends while Truncus knows nobody's key."""
    for model in (OutboxEntry, OutboxBatch, OutboxAccount):
        model.objects.all().delete()
    Email.objects.all().delete()
    mail.outbox = []
    forget_breakers()
    SuppressedAddress.objects.all().delete()
    emulator.reset(revoked_keys=[settings.TRUNCUS["API_KEY"]] if is_down else [])
    use_fallback(settings)
    settings.TRUNCUS = {
        **settings.TRUNCUS,
        "DELIVERY": delivery_of(path),
        "ON_SUPPRESSED": on_suppressed,
        "ALLOW_RECIPIENTS": ["*@*"] if guarded else [],
    }
    if not (is_late and delivery_of(path) == "outbox"):
        put(*BAD)
    sent = message(*to, cc=cc, esp_extra=extra)
    if with_receiver:
        pre_send.connect(add_bad)
    try:
        with contextlib.suppress(TruncusError):
            send_by(path, sent)
        put(*BAD)
        send_outbox()
    finally:
        pre_send.disconnect(add_bad)
    by_fallback = {bare(each) for sent in mail.outbox for each in sent.recipients()}
    assert not (reached(emulator) | by_fallback) & BAD
    if not extra and not with_receiver and path not in {"merge", "resend"}:
        given = {each.lower() for each in to + cc}
        if not any("bad" in each for each in given):
            assert len(by_fallback if is_down else reached(emulator)) == len(given)
