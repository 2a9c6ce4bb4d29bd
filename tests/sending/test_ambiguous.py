"""When a message is still the one whose send may have been accepted."""

import copy
import pickle
from datetime import UTC, datetime
from email.mime.image import MIMEImage
from uuid import uuid4

import pytest
from django.core.mail import EmailMessage
from django.utils.functional import lazystr

from truncus_django.api.client import TruncusClient
from truncus_django.api.encoding import EmailFields
from truncus_django.message import TruncusMessage
from truncus_django.sending.ambiguous import (
    forget,
    note_records,
    recall,
    remember,
)
from truncus_django.sending.fingerprint import fingerprint
from truncus_django.sending.outgoing import Batch, OutgoingMessage
from truncus_django.sending.payload import Payload

CLIENT = TruncusClient("tr_test_unit")


def a_message() -> TruncusMessage:
    message = TruncusMessage(
        lazystr("Hi"), "Text", "a@example.com", ["b@example.org"], html="<p>", tenant_id="acme"
    )
    message.metadata = {"order": 42}
    message.send_at = datetime(2030, 1, 1, tzinfo=UTC)
    message.attach("a.pdf", b"1", "application/pdf")
    message.attach("inner.eml", EmailMessage("Inner", "Text"), "message/rfc822")
    return message


def test_equal_messages_have_equal_fingerprints():
    assert fingerprint(a_message()) == fingerprint(a_message())


@pytest.mark.parametrize(
    "travel", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_a_copy_is_the_same_message(travel):
    assert fingerprint(travel(a_message())) == fingerprint(a_message())


@pytest.mark.parametrize(
    "change",
    [
        lambda message: setattr(message, "subject", "Ho"),
        lambda message: setattr(message, "body", "Other"),
        lambda message: setattr(message, "content_subtype", "html"),
        lambda message: message.to.append("c@example.org"),
        lambda message: message.bcc.append("c@example.org"),
        lambda message: message.extra_headers.update({"X-A": "1"}),
        lambda message: message.alternatives.clear(),
        lambda message: message.attachments.pop(),
        lambda message: message.attach("a.pdf", b"2", "application/pdf"),
        lambda message: message.attachments[1].content.to.append("c@example.org"),
        lambda message: setattr(message, "sandbox", True),
        lambda message: setattr(message, "tenant_id", "other"),
        lambda message: message.metadata.update({"order": 43}),
        lambda message: setattr(message, "merge_data", {}),
        lambda message: setattr(message, "tags", ["welcome"]),
        lambda message: setattr(message, "encoding", "latin-1"),
    ],
)
def test_a_changed_message_is_another_one(change):
    message = a_message()
    change(message)
    assert fingerprint(message) != fingerprint(a_message())


def test_whatever_a_message_holds_has_a_fingerprint():
    message = a_message()
    message.body = "half a character: \ud800"
    message.esp_extra = {"react": object, 1: {2}}
    message.attachments.append(MIMEImage(b"\x89PNG\r\n\x1a\n"))
    message.attachments.append(("a", memoryview(b"x"), None))
    assert fingerprint(message)


def remembered() -> OutgoingMessage:
    """A message whose request with the key k-1 may have been accepted."""
    payload = Payload(EmailFields(subject="Hi"), None, is_sandbox=False, size=1)
    outgoing = OutgoingMessage(0, a_message(), payload=payload)
    batch = Batch("k-1", [outgoing])
    remember(batch, CLIENT, now=0.0, is_ambiguous=True, wire_format=CLIENT.wire_format)
    return outgoing


def test_a_shallow_copy_keeps_what_the_message_has_forgotten():
    outgoing = remembered()
    copied = OutgoingMessage(0, copy.copy(outgoing.message))

    forget(outgoing, "k-1")

    assert recall(outgoing, CLIENT, is_sandbox=False) is None
    note = recall(copied, CLIENT, is_sandbox=False)
    assert note is not None
    assert note.idempotency_key == "k-1"


def test_the_record_is_noted_on_the_message_and_kept_by_the_next_ambiguous_send():
    outgoing, pk = remembered(), uuid4()
    note_records([(outgoing, "k-1", pk)])
    repeated = outgoing._replace(ambiguous_send=recall(outgoing, CLIENT, is_sandbox=False))
    batch = Batch("k-1", [repeated])
    remember(batch, CLIENT, now=1.0, is_ambiguous=True, wire_format=CLIENT.wire_format)

    note = recall(outgoing, CLIENT, is_sandbox=False)
    assert note is not None
    assert (note.email_pk, note.since) == (pk, 0.0)


def test_no_record_is_noted_of_a_send_that_was_answered():
    outgoing = remembered()
    forget(outgoing, "k-1")
    note_records([(outgoing, "k-1", uuid4())])
    assert recall(outgoing, CLIENT, is_sandbox=False) is None


def test_a_message_holds_one_note_of_ours():
    before = a_message().__dict__.keys()
    assert remembered().message.__dict__.keys() - before == {"_truncus_ambiguous_sends"}
