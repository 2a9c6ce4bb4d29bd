"""Who is suppressed by events and answers to a sync, and who is not."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tests.log.events import START, SYNC, answered, email, incoming, minute
from truncus_django.log.ingest import apply_details, ingest
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, SuppressedAddress
from truncus_django.states import State
from truncus_django.suppression import allow_again, is_suppressed, suppress

pytestmark = pytest.mark.django_db

GONE = "mailbox_does_not_exist"
ANN = "ann@example.net"


@pytest.fixture(autouse=True)
def _learns(settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "SUPPRESS": "learn"}


def to_ann(**fields):
    return email(to=["Ann <Ann@Example.net>"], **fields)


def suppressed():
    """Return address and reason of each entry."""
    return set(SuppressedAddress.objects.values_list("address", "reason"))


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (incoming("bounced", reason=GONE), "hard_bounce"),
        (incoming("bounced", reason="no_mx_record"), "hard_bounce"),
        (incoming("complained", reason="abuse"), "complaint"),
        (incoming("bounced", reason="mailbox_full"), None),
        (incoming("bounced", reason="connection_timeout"), None),
        (incoming("bounced", reason="a new word"), None),
        (incoming("bounced"), None),
        (incoming("delivered"), None),
    ],
)
@pytest.mark.parametrize("is_early", [False, True])
def test_events_teach_before_and_after_the_email_is_recorded(event, reason, is_early):
    if not is_early:
        to_ann(tenant_id="acme")
    ingest([event])
    if is_early:
        row = to_ann(tenant_id="acme")
        ingest([incoming("opened", 5)])  # by which it is attached
        assert row.events.count() == 2
    assert suppressed() == ({(ANN, reason)} if reason else set())
    for entry in SuppressedAddress.objects.all():
        assert (entry.tenant_id, entry.list_name, entry.source) == ("acme", "", "webhook")
        assert (entry.email, entry.created_at) == (Email.objects.get(), START)


def test_of_several_recipients_the_one_who_is_named():
    email(to=["a@example.net"], cc=["b@example.net"])
    ingest([incoming("complained")])
    assert suppressed() == set()
    ingest([incoming("bounced", 1, reason=GONE, recipient="B@example.net")])
    assert suppressed() == {("b@example.net", "hard_bounce")}


@pytest.mark.parametrize(
    "fields", [{"is_sandbox": True}, {"redirected_to": ["dev@example.com"]}, {"to": []}]
)
def test_what_says_nothing_about_the_recipient_teaches_nothing(fields):
    email(**{"to": [ANN], **fields})
    ingest([incoming("complained")])
    assert suppressed() == set()


@pytest.mark.parametrize("way", ["manual", "off"])
def test_nothing_is_learned_if_the_settings_say_so(settings, way):
    settings.TRUNCUS = {**settings.TRUNCUS, "SUPPRESS": way}
    to_ann()
    ingest([incoming("complained")])
    assert suppressed() == set()


def test_answers_to_a_sync_teach_by_their_state_and_their_events():
    to_ann()
    told = {"failure_reason": GONE}
    apply_details({"m-1": answered("bounced", intelligence=told)}, now=minute(2))
    assert suppressed() == {(ANN, "hard_bounce")}
    assert SuppressedAddress.objects.get().source == SYNC
    email("m-2", to=["bob@example.net"])
    apply_details({"m-2": answered("complained", ("complained", 1), message_id="m-2")})
    assert ("bob@example.net", "complaint") in suppressed()


def test_whom_a_person_removed_is_not_brought_back_by_the_same_event():
    to_ann()
    event, answer = incoming("complained"), answered("complained")
    ingest([event])
    assert allow_again("Ann <ANN@example.net>") == 1
    ingest([event])
    apply_details({"m-1": answer})
    assert suppressed() == set()
    to_ann_again = email("m-2", to=[ANN])
    ingest([incoming("complained", 9, message_id="m-2")])
    assert SuppressedAddress.objects.get().email == to_ann_again


def test_an_entry_stays_as_it_is_unless_it_ends_sooner():
    soon = timezone.now() + timedelta(days=1)
    assert suppress(ANN, note="asked by phone", expires_at=soon)
    assert not suppress(ANN, expires_at=timezone.now())
    assert SuppressedAddress.objects.get().expires_at == soon
    to_ann()
    ingest([incoming("complained")])
    entry = SuppressedAddress.objects.get()
    assert (entry.reason, entry.expires_at) == ("complaint", None)
    assert not suppress(ANN, note="again")
    entry.refresh_from_db()
    assert entry.note == ""


@pytest.mark.parametrize("reason", ["complaint", "unsubscribed"])
@pytest.mark.parametrize("until", [None, timezone.now() + timedelta(days=9)])
def test_who_asks_for_no_emails_is_written_over_another_reason_and_for_as_long(reason, until):
    suppress(ANN, reason="hard_bounce", note="see the ticket", expires_at=until)
    before = SuppressedAddress.objects.get()
    sooner = timezone.now() + timedelta(days=1)
    assert not suppress(ANN, reason=reason, expires_at=sooner)
    entry = SuppressedAddress.objects.get()
    assert (entry.pk, entry.reason, entry.expires_at) == (before.pk, reason, until)
    assert entry.note == "see the ticket"
    assert entry.created_at > before.created_at
    for other in ("hard_bounce", "complaint", "unsubscribed"):
        suppress(ANN, reason=other, expires_at=sooner)
        entry.refresh_from_db()
        assert entry.reason == reason


def test_a_wish_that_is_over_changes_no_entry():
    over = timezone.now() - timedelta(days=1)
    suppress(ANN, reason="hard_bounce")
    suppress("bob@example.net", reason="hard_bounce", expires_at=over)
    for address in (ANN, "bob@example.net"):
        assert not suppress(address, reason="unsubscribed", expires_at=over - timedelta(days=1))
    assert {reason for _, reason in suppressed()} == {"hard_bounce"}


def test_what_is_over_is_begun_anew():
    suppress(ANN, expires_at=timezone.now() - timedelta(days=1))
    assert not is_suppressed(ANN)
    assert suppress(ANN)
    assert is_suppressed(ANN)


def test_lists_and_tenants_are_told_apart():
    suppress(ANN, list_name="digest", tenant_id="acme", reason="unsubscribed")
    assert is_suppressed("ANN@example.net", list_name="digest", tenant_id="acme")
    assert not is_suppressed(ANN)
    assert not is_suppressed(ANN, list_name="digest")
    assert not is_suppressed(ANN, list_name="Digest", tenant_id="acme")
    suppress(ANN, tenant_id="acme")
    assert is_suppressed(ANN, list_name="news", tenant_id="acme")
    assert allow_again(ANN, list_name="") == 1
    assert allow_again("b@example.net") == 0


def test_a_message_s_own_tenant_and_list_name_what_they_name_on_emails():
    assert suppress(ANN, tenant_id=TruncusMessage().tenant_id, list_name=" digest ")
    assert is_suppressed(ANN, tenant_id=None, list_name="digest")
    assert not is_suppressed(ANN, list_name=None)
    assert allow_again(ANN, list_name="digest ") == 1
    assert not is_suppressed(ANN, list_name="digest")


def test_a_burst_of_events_about_one_address_is_one_entry():
    for number in range(30):
        email(f"m-{number}", to=[ANN])
    ingest([incoming("complained", number, f"m-{number}") for number in range(30)])
    assert SuppressedAddress.objects.count() == 1


def test_purge_keeps_the_entry_and_forgets_its_email():
    row = to_ann(state=State.SENT)
    ingest([incoming("complained")])
    row.delete()
    assert SuppressedAddress.objects.get().email is None


@pytest.mark.parametrize("name", ["list_name", "tenant_id"])
@pytest.mark.parametrize("value", ["x" * 300, "x\x00"])
def test_a_name_that_no_email_can_have_is_a_clear_error(name, value):
    with pytest.raises(ValueError, match=f"{name} may have"):
        suppress("ann@example.org", **{name: value})
    assert not SuppressedAddress.objects.exists()


@pytest.mark.parametrize("note", [None, "by phone\x00"])
def test_any_note_is_stored(note):
    assert suppress("ann@example.org", note=note)
    assert SuppressedAddress.objects.get().note == ("by phone" if note else "")
