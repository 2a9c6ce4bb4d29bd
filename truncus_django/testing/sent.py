"""All that was sent in a test: to Django's memory, to the emulator, and into the outbox."""

from collections.abc import Iterator, Sequence

from django.apps import apps
from django.core import mail
from django.core.mail import EmailMessage

from truncus_django.api import contract
from truncus_django.api.errors import TruncusError
from truncus_django.conf import get_settings, mailers
from truncus_django.emulator import EmailRecord
from truncus_django.message import has_merge_data
from truncus_django.sending.merge import Merge
from truncus_django.testing.emulator import emulator_in_use
from truncus_django.testing.sent_email import SentEmail, of_message, of_payload, of_record


def sent_emails() -> list[SentEmail]:
    """Return what was sent in this test, each email once, of each place the oldest first.

    A message with merge data is one for each of its recipients, as Truncus would send it.

    Raises:
        AssertionError: a message in Django's memory has merge data that Truncus would refuse.
        ConfigurationError: the settings are wrong.
        django.db.DatabaseError: the outbox cannot be read.
    """
    found = [one for message in getattr(mail, "outbox", ()) for one in _each(message)]
    emulator = emulator_in_use()
    records = [] if emulator is None else emulator.emails
    found += [of_record(record) for record in records if record.status != contract.CANCELLED]
    if _has_outbox():
        found += _waiting(records)
    return found


def _each(message: EmailMessage) -> Iterator[SentEmail]:
    if not has_merge_data(message):
        yield of_message(message)
        return
    try:
        merge = Merge(message)
        for recipient in merge.recipients:
            one = merge.filled(recipient)
            yield of_message(one)
    except TruncusError as error:
        raise AssertionError(
            f"An email that was sent in memory would be refused by Truncus: {error}"
        ) from None


def _has_outbox() -> bool:
    """Whether anything is sent by way of the outbox; only then a test needs its database."""
    return apps.is_installed("truncus_django") and any(
        get_settings(options).delivery == "outbox" for _, options in mailers()
    )


def _waiting(records: Sequence[EmailRecord]) -> list[SentEmail]:
    """Return what the outbox has still to send.

    Truncus knows a key as soon as it has accepted anything of a request: what it has not
    accepted then was refused, though the answer may have been lost.
    """
    # Here, because its models need the app, which is optional.
    from truncus_django.testing.outbox import waiting_payloads

    known = {record.idempotency_key for record in records} - {""}
    return [
        of_payload(waiting.fields, sandbox=waiting.is_sandbox, email_pk=waiting.pk)
        for waiting in waiting_payloads()
        if waiting.key not in known
    ]
