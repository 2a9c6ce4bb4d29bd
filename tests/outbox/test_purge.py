"""``truncus_purge`` and the outbox: what is to be sent stays, what was stored can be dropped."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone

from tests.log.conftest import in_threads, other_database, shared_database
from truncus_django.log.purge import Purge
from truncus_django.models import Email, OutboxBatch, OutboxEntry
from truncus_django.outbox.operations import cancel, retry
from truncus_django.states import State

__all__ = ["in_threads", "other_database", "shared_database"]

pytestmark = pytest.mark.django_db


def purge(*arguments):
    call_command("truncus_purge", "--older-than", "30d", *arguments, stdout=StringIO())


def make_old(emails):
    moment = timezone.now() - timedelta(days=31)
    Email.objects.filter(pk__in=[email.pk for email in emails]).update(created_at=moment)


def of_state(put, *states):
    """Put emails into the outbox that have come to these states, 31 days ago."""
    emails = put(len(states))
    for email, state in zip(emails, states, strict=True):
        Email.objects.filter(pk=email.pk).update(state=state)
        is_waiting = state == State.PENDING
        OutboxEntry.objects.filter(pk=email.pk).update(is_waiting=is_waiting)
    make_old(emails)
    return emails


def test_what_is_still_to_be_sent_or_decided_stays(put):
    of_state(put, State.PENDING, State.SENDING, State.UNKNOWN)

    purge()
    purge("--bodies")

    assert Email.objects.count() == OutboxEntry.objects.count() == 3


def test_a_finished_email_goes_with_its_stored_payload(put):
    of_state(put, State.FAILED, State.CANCELLED, State.SENT)

    purge()

    assert Email.objects.count() == OutboxEntry.objects.count() == 0


def test_bodies_alone_count_as_stored_too(put, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
    of_state(put, State.FAILED, State.SENT)
    young = put(1)
    Email.objects.filter(pk=young[0].pk).update(state=State.FAILED)
    OutboxEntry.objects.filter(pk=young[0].pk).update(is_waiting=False)

    purge("--bodies")

    assert Email.objects.count() == 3
    assert OutboxEntry.objects.get().pk == young[0].pk
    assert Email.objects.exclude(text_body=None).get() == young[0]


def test_what_is_stored_without_texts_is_found(put):
    of_state(put, State.FAILED)
    out = StringIO()

    call_command("truncus_purge", "--older-than", "30d", "--bodies", "--dry-run", stdout=out)
    assert "1 emails would lose their bodies" in out.getvalue()
    purge("--bodies")
    assert not OutboxEntry.objects.exists()


def test_a_part_of_a_request_stays_whatever_became_of_it(put):
    """IncomingEvent may have come before the answer: the request is still repeated whole."""
    [email] = of_state(put, State.DELIVERED)
    batch = OutboxBatch.objects.create(idempotency_key="k", priority=5, due_at=timezone.now())
    OutboxEntry.objects.update(batch=batch)

    purge()
    purge("--bodies")

    assert OutboxEntry.objects.get().pk == email.pk


@pytest.mark.django_db(transaction=True)
def test_what_is_retried_while_it_is_purged_is_sent_or_gone_and_never_half(
    shared_database, put, in_threads
):
    emails = put(400)
    ids = [email.pk for email in emails]
    cancel(ids)
    make_old(emails)
    before = timezone.now() - timedelta(days=30)

    in_threads(
        lambda: Purge(before=before, batch_size=50).run(),
        lambda: [retry(ids[start : start + 20]) for start in range(380, -1, -20)],
    )

    waiting = set(Email.objects.filter(state=State.PENDING).values_list("pk", flat=True))
    assert set(Email.objects.values_list("pk", flat=True)) == waiting
    assert set(OutboxEntry.objects.filter(is_waiting=True).values_list("pk", flat=True)) == waiting
    assert OutboxEntry.objects.count() == len(waiting)
