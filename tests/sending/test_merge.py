"""Merge data: one message, an email for each of its recipients."""

import math
from collections import Counter

import pytest
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils.html import escape
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.sending.merged import PEOPLE, by_recipient, merged
from truncus_django.api.errors import InvalidAddress, MessageError, MessagesNotSent
from truncus_django.backend import TruncusBackend
from truncus_django.models import Email, OutboxEntry
from truncus_django.sending.addresses import mailbox
from truncus_django.signals import post_send, pre_send
from truncus_django.testing import run_emulator, send_outbox, use_emulator

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("emulator")]


@pytest.mark.parametrize("name", ["merge_data", "merge_metadata", "merge_headers"])
def test_each_recipient_gets_an_email_of_their_own_as_soon_as_one_is_set(name, emulator):
    message = EmailMessage("Hello", "Text", "shop@example.com", PEOPLE)
    setattr(message, name, {})

    assert message.send() == 2
    assert [email.payload["to"] for email in emulator.emails] == PEOPLE
    assert len(emulator.requests) == 1


def test_with_a_template_the_data_are_its_variables(emulator):
    message = merged(
        template_id="welcome",
        merge_global_data={"a": "1", "b": "2"},
        merge_data={"BOB@Example.org": {"b": "3"}},
    )
    message.body = "{{ a }}"
    message.send()

    found = by_recipient(emulator)
    assert found["ann@example.org"].payload["variables"] == {"a": "1", "b": "2"}
    assert found["bob@example.org"].payload["variables"] == {"a": "1", "b": "3"}
    assert found["bob@example.org"].payload["text"] == "{{ a }}"


def test_metadata_and_headers_of_a_recipient_win(emulator):
    message = merged(
        metadata={"run": "7", "kind": "digest"},
        headers={"X-Kind": "all", "X-Run": "7"},
        merge_data=None,
        merge_metadata={"ann@example.org": {"kind": "own", "user": 4}},
        merge_headers={"bob@example.org": {"x-kind": "bob's"}},
    )
    message.send()

    found = by_recipient(emulator)
    ann, bob = (found[address].payload for address in ("ann@example.org", "bob@example.org"))
    assert ann["metadata"] == {"run": "7", "kind": "own", "user": "4"}
    assert bob["metadata"] == {"run": "7", "kind": "digest"}
    assert ann["headers"] == {"X-Kind": "all", "X-Run": "7"}
    assert bob["headers"] == {"X-Run": "7", "x-kind": "bob's"}


@pytest.mark.parametrize(
    "key", ["ann@müller.example", "ANN@XN--MLLER-KVA.EXAMPLE", "Ann <ann@müller.example>"]
)
def test_an_address_is_known_in_every_form(key, emulator):
    message = merged(to=["Ann <Ann@müller.example>"], merge_data={key: {"name": "Ann"}})
    message.body = "Dear {{ name }}"
    message.send()

    assert emulator.emails[0].payload["text"] == "Dear Ann"
    assert message.truncus_status.recipients[key].status == "delivered"


def test_who_is_there_twice_gets_one_email(emulator):
    assert merged(to=["ann@example.org", "Ann <ANN@example.org>"]).send() == 1
    assert len(emulator.emails) == 1


def test_250_recipients_are_three_requests(emulator):
    message = merged(to=[f"customer{number}@example.org" for number in range(250)])
    assert message.send() == 250
    assert [len(email.to) for email in emulator.emails] == [1] * 250
    assert len(emulator.requests) == 3
    assert Email.objects.count() == 250


def test_each_has_a_status_and_a_record(emulator):
    emulator.suppress("bob@example.org")
    message = merged()
    with pytest.raises(MessagesNotSent, match="1 of 2 emails were not sent") as caught:
        message.send()

    status = message.truncus_status
    assert status.status == "mixed"
    assert not status.is_accepted
    ann, bob = (status.recipients[address] for address in PEOPLE)
    assert ann.status == "delivered"
    assert ann.is_accepted
    assert bob.status == "rejected"
    assert status.error is bob.error
    assert Email.objects.get(pk=ann.email_pk).to == ["Ann <ann@example.org>"]
    assert Email.objects.get(pk=bob.email_pk).to == ["bob@example.org"]
    assert [failure.message.to for failure in caught.value.failures] == [["bob@example.org"]]
    assert list(status.recipients) == ["ann@example.org", "bob@example.org"]
    assert "ann" not in repr(status)
    for stranger in ("eve@example.org", "nobody"):
        with pytest.raises(KeyError, match=r"^'The message has no such recipient\.'$"):
            status.recipients[stranger]


def test_the_others_of_a_list_are_as_before(emulator):
    plain = EmailMessage("Plain", "Text", "shop@example.com", PEOPLE)
    message = merged()
    assert TruncusBackend().send_messages([plain, message, plain]) == 4
    assert plain.truncus_status.recipients == {}
    assert message.truncus_status.status == "delivered"
    assert len(emulator.requests) == 2


def test_own_keys_are_the_recipients_own(emulator):
    for _ in range(2):
        assert merged(idempotency_key="digest-7").send() == 2
    assert emulator.accepted == 2
    keys = {email.idempotency_key for email in Email.objects.all()}
    assert len(keys) == 2
    assert all(key.startswith("digest-7:") for key in keys)
    for impossible in ("", True, object()):
        with pytest.raises((MessageError, MessagesNotSent)):
            merged(idempotency_key=impossible).send()
    assert merged(idempotency_key="k" * 255).send() == 2
    assert emulator.accepted == 4


def test_in_the_outbox_each_recipient_waits_alone(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}
    message = merged(
        merge_data={"ann@example.org": {"name": "Ann"}}, merge_global_data={"name": ""}
    )
    message.body = "Dear {{ name }}"

    assert message.send() == 2
    assert message.truncus_status.status == "pending"
    assert OutboxEntry.objects.count() == 2
    pks = {status.email_pk for status in message.truncus_status.recipients.values()}
    assert pks == set(Email.objects.values_list("pk", flat=True))
    assert send_outbox() == 2
    assert len(emulator.requests) == 1
    assert by_recipient(emulator)["ann@example.org"].payload["text"] == "Dear Ann"


def test_one_recipient_without_a_value_does_not_cost_the_others(emulator):
    message = merged(merge_data={"bob@example.org": {"name": "Bob"}})
    message.body = "Dear {{ name }}"
    with pytest.raises(MessagesNotSent):
        message.send()
    assert message.truncus_status.recipients["ann@example.org"].status == "failed"
    assert message.truncus_status.recipients["bob@example.org"].status == "delivered"


def test_copies_go_out_where_they_are_asked_for(emulator):
    message = merged(cc=["boss@example.com"], merge_cc=True)
    assert message.send() == 2
    assert [email.payload["cc"] for email in emulator.emails] == [["boss@example.com"]] * 2


def test_nobody_to_send_to_is_no_email(emulator):
    message = merged(to=[])
    assert message.send() == 0
    assert message.truncus_status is None


def test_anymail_unset_is_no_merge_data(emulator):
    message = EmailMessage("Hello", "Text", "shop@example.com", PEOPLE)
    message.merge_data = type("UNSET", (), {})
    assert message.send() == 1
    assert emulator.emails[0].payload["to"] == PEOPLE


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"merge_data": {"eve@example.org": {}}}, "not in 'to', its number 1"),
        ({"merge_metadata": {"eve@example.org": {}}}, "merge_metadata has an address that is not"),
        ({"merge_data": ["ann@example.org"]}, "merge_data must be a dict of addresses to dicts"),
        ({"merge_data": {"ann@example.org": "Ann"}}, "map each address to a dict; number 1 is a s"),
        ({"merge_data": {"ann@example.org": {}, "ANN@example.org": {}}}, "an address twice"),
        ({"merge_data": {"nobody": {}}}, "The address in 'merge_data', number 1, has nothing"),
        ({"merge_headers": {7: {}}}, "The address in 'merge_headers', number 1, is a int"),
        ({"cc": ["boss@example.org"]}, "merge_cc=True"),
        ({"bcc": ["boss@example.org"]}, "merge_cc=True"),
        ({"merge_global_data": {"a": 1}, "variables": {"a": 1}}, "two names of one thing"),
        ({"merge_cc": "no"}, "merge_cc must be True, False or None"),
        ({"esp_extra": {"to": ["x@example.org"]}}, "esp_extra sets 'to'"),
        ({"esp_extra": {"variables": {"a": "b"}}}, "esp_extra sets 'variables'"),
        ({"merge_global_data": ["a"]}, "merge_global_data must be a dict"),
        ({"merge_global_data": {"name": "Ann"}}, "the data would change nothing"),
        ({"metadata": "x"}, "metadata must be a dict"),
    ],
)
def test_wrong_merge_data_are_an_error_before_any_request(options, text, emulator):
    message = merged()
    for name, value in options.items():
        setattr(message, name, value)
    with pytest.raises((MessageError, InvalidAddress), match=text) as caught:
        TruncusBackend().send_messages([message])
    assert ".org" not in str(caught.value)
    assert emulator.requests == []
    assert message.truncus_status.status == "failed"


class Uncopyable(list):
    def __deepcopy__(self, memo):
        raise RuntimeError("ann@example.org")


@pytest.mark.parametrize(
    "options",
    [
        {"alternatives": [7], "template_id": "welcome"},
        {"attachments": [Uncopyable()]},
        {"extra_headers": 7},
    ],
)
def test_a_message_that_cannot_be_copied_does_not_cost_the_others_of_a_list(options, emulator):
    bad, good = merged(), merged()
    for name, value in options.items():
        setattr(bad, name, value)
    assert TruncusBackend(fail_silently=True).send_messages([bad, good]) == 2
    for status in bad.truncus_status.recipients.values():
        assert isinstance(status.error, MessageError)
        assert ".org" not in str(status.error)
    assert len(bad.truncus_status.recipients) == 2
    assert good.truncus_status.status == "delivered"


# Receivers ----------------------------------------------------------------------------------------


def test_nothing_that_a_receiver_changes_is_anothers(emulator):
    def change(message, payload, **kwargs):
        content, kind = message.alternatives[0]
        message.alternatives[0] = (content.replace("%WHO%", message.to[0]), kind)
        message.esp_extra["metadata"].setdefault("who", message.to[0])
        payload.setdefault("headers", {}).setdefault("X-Who", message.to[0])

    message = merged(html="<p>%WHO%", esp_extra={"metadata": {"a": "1"}, "headers": {"X-A": "1"}})
    pre_send.connect(change)
    try:
        message.send()
    finally:
        pre_send.disconnect(change)
    for email in emulator.emails:
        [own] = [email.payload["to"]]
        assert email.payload["html"] == f"<p>{own}"
        assert email.payload["metadata"]["who"] == own
        assert email.payload["headers"]["X-Who"] == own
    assert message.alternatives[0][0] == "<p>%WHO%"
    assert message.esp_extra == {"metadata": {"a": "1"}, "headers": {"X-A": "1"}}


def test_receivers_see_each_email_and_cannot_reach_another(emulator):
    seen = []

    def change(message, payload, **kwargs):
        message.attachments.append(("a.txt", message.to[0], "text/plain"))
        message.extra_headers["X-To"] = message.to[0]
        message.bcc.append("archive@example.com")

    def note(message, status, **kwargs):
        seen.append((message.to, status.status))

    pre_send.connect(change)
    post_send.connect(note)
    try:
        merged(metadata={}).send()
    finally:
        pre_send.disconnect(change)
        post_send.disconnect(note)

    assert seen == [([PEOPLE[0]], "delivered"), ([PEOPLE[1]], "delivered")]
    assert [len(email.payload["attachments"]) for email in emulator.emails] == [1, 1]
    assert [email.payload["headers"]["X-To"] for email in emulator.emails] == PEOPLE


# For any recipients and batches -------------------------------------------------------------------


LOCAL = st.text("abcXYZ019.+_-", min_size=1, max_size=8).filter(
    lambda text: not text.startswith(".") and not text.endswith(".") and ".." not in text
)

ADDRESSES = st.builds("{}@{}".format, LOCAL, st.sampled_from(["example.org", "MÜLLER.example"]))

VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Cn"]), max_size=20)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    people=st.dictionaries(ADDRESSES, VALUES, min_size=1, max_size=230),
    as_html=st.booleans(),
    names=st.booleans(),
)
def test_everyone_gets_their_own_value_and_nobody_another(people, as_html, names):
    values: dict[str, str] = {}
    for number, (address, value) in enumerate(people.items()):
        values.setdefault(mailbox(address, "to"), f"[{number}:{value}]")
    first = {mailbox(address, "to"): address for address in reversed(people)}
    message = EmailMultiAlternatives("To {{ v }}", "{{ v }}", "shop@example.com")
    message.to = [f"Name <{address}>" if names else address for address in people]
    message.merge_data = {first[key]: {"v": value} for key, value in values.items()}
    if as_html:
        message.attach_alternative("<p>{{ v }}</p>", "text/html")

    with run_emulator() as emulator, use_emulator(emulator):
        assert message.send() == len(values)
        found = Counter(mailbox(email.payload["to"], "to") for email in emulator.emails)
        assert found == Counter(list(values))
        assert len(emulator.requests) == math.ceil(len(values) / 100)
        for email in emulator.emails:
            payload = email.payload
            own = values[mailbox(payload["to"], "to")]
            assert payload["text"] == own
            assert payload["subject"] == f"To {own}"
            if as_html:
                assert payload["html"] == f"<p>{escape(own)}</p>"
            whole = str(payload)
            others = set(values) - {mailbox(payload["to"], "to")}
            assert not [other for other in others if f"<{other}>" in whole]
            assert payload.keys().isdisjoint({"cc", "bcc", "headers"})
