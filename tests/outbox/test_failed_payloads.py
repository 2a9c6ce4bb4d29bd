"""``FAILED_PAYLOAD_DAYS``: what the outbox could send again of a failed email goes in the end."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from truncus_django.admin.resend import why_not_resendable
from truncus_django.models import Email, OutboxEntry
from truncus_django.outbox.operations import OperationResult, retry
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def purge(*arguments):
    out = StringIO()
    call_command("truncus_purge", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def of_state(put, *states, days=31):
    emails = put(len(states))
    moment = timezone.now() - timedelta(days=days)
    for email, state in zip(emails, states, strict=True):
        Email.objects.filter(pk=email.pk).update(state=state, created_at=moment)
        waits = state == State.PENDING
        OutboxEntry.objects.filter(pk=email.pk).update(is_waiting=waits, created_at=moment)
    return emails


def test_stored_payloads_of_failed_emails_go_and_the_emails_stay(put):
    failed = of_state(put, State.FAILED, State.REJECTED, State.CANCELLED)
    young = of_state(put, State.FAILED, days=29)
    told = purge()
    assert "3 stored payloads went, of emails that failed 30 days ago." in told
    assert "No emails were purged. Say how old" in told
    assert [entry.pk for entry in OutboxEntry.objects.all()] == [young[0].pk]
    assert Email.objects.count() == 4
    assert retry([failed[0].pk]) == {failed[0].pk: OperationResult.NOT_STORED}
    failed[0].refresh_from_db()
    assert "truncus_purge has dropped it" in why_not_resendable(failed[0], is_stored=False)


def test_what_is_still_to_be_sent_or_decided_or_was_sent_stays(put):
    of_state(put, State.PENDING, State.SENDING, State.UNKNOWN, State.DELIVERED)
    purge()
    assert OutboxEntry.objects.count() == 4


def test_the_days_can_be_others_or_none(put, settings):
    of_state(put, State.FAILED, days=40)
    for days, left in ((60, 1), (None, 1), (10, 0)):
        settings.TRUNCUS = {**settings.TRUNCUS, "FAILED_PAYLOAD_DAYS": days}
        purge()
        assert OutboxEntry.objects.count() == left


def test_what_was_tried_again_counts_from_then(put):
    email = of_state(put, State.FAILED)[0]
    retry([email.pk])
    Email.objects.filter(pk=email.pk).update(state=State.FAILED)
    OutboxEntry.objects.update(is_waiting=False)
    purge()
    assert OutboxEntry.objects.exists()


def test_dry_run_counts_them(put):
    of_state(put, State.FAILED)
    assert "1 stored payloads would go" in purge("--dry-run")
    assert OutboxEntry.objects.exists()


def test_states_and_bodies_need_an_age(put):
    of_state(put, State.FAILED)
    for option in ("--bodies", "--state=failed"):
        with pytest.raises(CommandError, match="Say how old"):
            purge(option)
    assert OutboxEntry.objects.exists()
