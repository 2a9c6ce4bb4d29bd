"""After forgetting, a search through the whole database finds nobody, however they were spelled."""

from datetime import UTC, datetime
from random import Random

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.forget.conftest import dump
from tests.log.events import SYNC, incoming
from truncus_django.api.results import EmailDetails, ReportedEvent
from truncus_django.backend import TruncusBackend
from truncus_django.forget import forget
from truncus_django.log.ingest import apply_details, ingest
from truncus_django.message import TruncusMessage
from truncus_django.models import (
    BulkEmail,
    Email,
    EmailEvent,
    OutboxBatch,
    OutboxEntry,
    SuppressedAddress,
)
from truncus_django.sending.forgotten import is_digest
from truncus_django.states import State
from truncus_django.suppression import is_suppressed, suppress
from truncus_django.testing import send_outbox

pytestmark = pytest.mark.django_db(transaction=True)

PEOPLE = {
    # An address, its local part without quotes, and all forms of its domain.
    "ann@example.org": ("ann", ["example.org"]),
    "ann+shop@example.org": ("ann+shop", ["example.org"]),
    "o'ann@example.org": ("o'ann", ["example.org"]),
    '"ann..lee"@example.org': ("ann..lee", ["example.org"]),
    "ann@bücher.example": ("ann", ["bücher.example", "xn--bcher-kva.example"]),
}
OTHERS = (
    "joann@example.org",
    "jo.ann@example.org",
    "ann+tea@example.org",
    "ann@example.org.uk",
    "joann@bücher.example",
    "bob@example.org",
)


class Speller:
    """Spells a person's address in a way that is left to chance."""

    def __init__(self, address, seed):
        self.local, self.domains = PEOPLE[address]
        self.random = Random(seed)

    def bare(self):
        quoted = ".." in self.local or self.random.random() < 0.2
        local = f'"{self.local}"' if quoted else self.local
        text = f"{local}@{self.random.choice(self.domains)}"
        return "".join(self.random.choice([each, each.upper()]) for each in text)

    def __call__(self):
        bare = self.bare()
        return self.random.choice([bare, f"Ann <{bare}>", f'"Lee, Ann" <{bare}>'])

    def text(self):
        around = self.random.choice(
            ["Write to {}.", "<b>{}</b>", "https://example.com/?e={}&x=1", "550 <{}>", "({})"]
        )
        return around.format(self.bare())

    @property
    def plain(self):
        locals_ = [self.local, f'"{self.local}"']
        return [f"{local}@{domain}" for local in locals_ for domain in self.domains]


@pytest.fixture
def world(emulator, configure):
    """Return a function that fills all tables, by the ways in which emails and events come."""
    clerk = User.objects.create_user("clerk")

    def send(speller, *to, **options):
        message = TruncusMessage(
            options.pop("subject", f"For {speller.text()}"),
            f"Hello {speller.text()}",
            "shop@example.com",
            list(to),
            html=f"<p>{speller.text()}</p>",
            metadata={"who": speller.bare(), "text": speller.text()},
            headers={"X-Who": f"x {speller.text()}"},
            attachments=[(f"{speller.local}.txt", "text", "text/plain")],
            **options,
        )
        TruncusBackend(fail_silently=True).send_messages([message])
        return Email.objects.get(pk=message.truncus_status.email_pk)

    def fill(speller, other):
        for model in (OutboxEntry, BulkEmail, EmailEvent, Email, OutboxBatch, SuppressedAddress):
            model.objects.all().delete()
        LogEntry.objects.all().delete()
        configure(DELIVERY="direct", SUPPRESS="off")
        emails = [
            send(speller, speller()),
            send(speller, other, cc=[speller()]),
            send(speller, other, bcc=[speller(), "boss@example.com"]),
            send(speller, other, reply_to=[speller()]),
            send(speller, other, idempotency_key=f"hello-{speller.plain[-1]}-{other}"),
        ]
        configure(DELIVERY="outbox")
        emails += [send(speller, speller()), send(speller, other, speller())]
        send_outbox()
        emulator.reset(domains={"example.com": "paused"}, requests_per_second=0)
        emails += [send(speller, speller()), send(speller, other, reply_to=[speller()])]
        send_outbox()
        emulator.reset(requests_per_second=0, requests_per_minute=0)
        for number, email in enumerate(emails):
            Email.objects.filter(pk=email.pk, message_id=None).update(message_id=f"id-{number}")
            email.refresh_from_db()
            ingest(
                [
                    incoming(
                        "bounced",
                        number,
                        email.message_id,
                        recipient=speller(),
                        reason=speller.text()[:300],
                        payload={"to": [speller(), other], "text": speller.text()},
                    )
                ]
            )
            at = datetime(2026, 11, 2, number, tzinfo=UTC)
            reported = ReportedEvent(f"s-{number}", "opened", at, {"recipient": speller()})
            details = EmailDetails(email.message_id, "bounced", events=(reported,))
            apply_details({email.message_id: details})
        # An event without an email, twice reported.
        ingest([incoming("opened", 1, "nobody", recipient=speller(), payload={"a": speller()})])
        ingest([incoming("opened", 2, "nobody", source=SYNC, payload={"b": [speller.text()]})])
        BulkEmail.objects.create(id=emails[0].pk, key=f"digest {speller.plain[0]}", email=emails[0])
        suppress(speller(), note=f"asked by {speller.text()}")
        suppress(speller(), list_name="digest", reason="unsubscribed")
        suppress("boss@example.com", note=f"see {speller.text()}")
        LogEntry.objects.create(
            user_id=clerk.pk,
            content_type=ContentType.objects.get_for_model(Email),
            object_id=str(emails[0].pk),
            object_repr=speller.text(),
            action_flag=CHANGE,
            change_message=f'[{{"changed": "{speller.bare()}"}}]'.replace('""', '"'),
        )
        return emails

    return fill


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(
    person=st.sampled_from(sorted(PEOPLE)),
    other=st.sampled_from(OTHERS),
    seed=st.integers(0, 10**6),
)
def test_nobody_is_found_after_being_forgotten_and_others_stay(world, person, other, seed):
    speller = Speller(person, seed)
    emails = world(speller, other)
    other_lists = [[each for each in email.recipients if each == other] for email in emails]
    count, events = Email.objects.count(), EmailEvent.objects.count()
    counted = forget(speller(), dry_run=True)
    assert any(plain in dump() for plain in speller.plain)

    found = forget(speller())

    assert found.left == 0
    assert (found.emails, found.mentions, found.suppressed) == (6, 3, 2)
    assert counted == found
    text = dump().replace(other, "").replace(other.replace("bücher", "xn--bcher-kva"), "")
    assert [plain for plain in speller.plain if plain in text] == []
    assert (Email.objects.count(), EmailEvent.objects.count()) == (count, events)
    for email, listed in zip(emails, other_lists, strict=True):
        email.refresh_from_db()
        assert [each for each in email.recipients if each == other] == listed
    assert is_suppressed(speller())
    digests = SuppressedAddress.objects.exclude(address="boss@example.com")
    assert [is_digest(entry.address) for entry in digests] == [True, True]
    assert forget(speller()) == type(found)()


def test_emails_end_in_the_states_that_they_had(world):
    emails = world(Speller("ann@example.org", 1), "joann@example.org")
    before = {email.pk: email.state for email in Email.objects.all()}
    forget("ann@example.org")
    assert {email.pk: email.state for email in Email.objects.all()} == before
    assert State.BOUNCED in before.values()
    assert len(emails) == len(before)
