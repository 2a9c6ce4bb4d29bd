"""When a message is still the one whose send may have been accepted."""

import copy
import pickle
from datetime import UTC, datetime
from email.mime.image import MIMEImage

import pytest
from django.core.mail import EmailMessage
from django.utils.functional import lazystr

from truncus_django.api.client import TruncusClient
from truncus_django.api.encoding import EmailFields
from truncus_django.message import TruncusMessage
from truncus_django.sending.ambiguous import fingerprint, forget, recall, remember
from truncus_django.sending.outgoing import Batch, OutgoingMessage
from truncus_django.sending.payload import Payload


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


def test_what_is_known_of_a_message_is_not_known_of_its_shallow_copy():
    client = TruncusClient("tr_test_unit")
    payload = Payload(EmailFields(subject="Hi"), None, is_sandbox=False, size=1)
    outgoing = OutgoingMessage(0, a_message(), payload, key="k-1")
    remember(Batch("k-1", [outgoing]), client, now=0.0, is_ambiguous=True)
    copied = OutgoingMessage(0, copy.copy(outgoing.message))

    forget(outgoing)

    assert recall(outgoing, client, is_sandbox=False) is None
    note = recall(copied, client, is_sandbox=False)
    assert note is not None
    assert note.idempotency_key == "k-1"
