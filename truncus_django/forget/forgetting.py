"""Forgetting one person: each row that names them, in one pass through all tables.

What stands in a row changes in one transaction with what follows from it, so that a process may be
killed at any point: what is done stays done, and the next run finds the rest.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from django.db import models, transaction
from django.utils import timezone

from truncus_django.api.errors import MessageError, TruncusError
from truncus_django.db.retry import in_tries
from truncus_django.forget import tables
from truncus_django.forget.person import Person
from truncus_django.forget.tables import Table
from truncus_django.log import suppression
from truncus_django.log.one_email import cancel_scheduled
from truncus_django.log.purge import hold_entries
from truncus_django.log.search_text import search_text
from truncus_django.models import Email, EmailEvent, OutboxEntry, SuppressedAddress
from truncus_django.outbox import operations
from truncus_django.outbox.stored_payload import payload_json, read_payload
from truncus_django.sending.forgotten import FORGOTTEN, digests_of
from truncus_django.states import OUTBOX_STATES, UNSENT_STATES, State

_AT_ONCE = 50
"""Rows in one transaction. They are read whole, and bodies may be large."""


@dataclass(slots=True)
class Found:
    """How many rows name a person, or have named them.

    Attributes:
        emails: to or from them.
        mentions: other emails in whose texts they stand.
        events: of emails to or from them, or that name them.
        payloads: stored by the outbox.
        suppressed: entries of their address, which stay as digests.
        others: notes of other entries, errors, keys of bulks, lines of the admin's history.
        waiting: emails left as they are, since they wait to be sent, by a worker or by Truncus.
        ambiguous: emails left as they are, since they are being sent or may have been.
    """

    emails: int = 0
    mentions: int = 0
    events: int = 0
    payloads: int = 0
    suppressed: int = 0
    others: int = 0
    waiting: int = 0
    ambiguous: int = 0

    @property
    def changed(self) -> int:
        """In how many emails the person was forgotten."""
        return self.emails + self.mentions

    @property
    def left(self) -> int:
        """How many emails are left as they are, and forgotten when they are finished."""
        return self.waiting + self.ambiguous


@dataclass(slots=True, kw_only=True)
class Forgetting:
    """Forgets the person at an address.

    Attributes:
        person: who.
        cancels: whether emails to or from them that wait are cancelled first.
        on_progress: called with a number of rows that were looked through.
    """

    person: Person
    cancels: bool = False
    on_progress: Callable[[int], None] = lambda count: None
    _is_dry: bool = field(default=False, init=False)

    def count(self) -> Found:
        """Return what :meth:`run` would find."""
        self._is_dry = True
        return self._through_all(Found())

    def run(self, found: Found | None = None) -> Found:
        """Do it; ``found`` is written on, so that it is known after an interruption, too.

        Raises:
            django.db.Error: what was done before stays done.
        """
        self._is_dry = False
        return self._through_all(found or Found())

    def _through_all(self, found: Found) -> Found:
        self._through(tables.EMAILS, partial(self._emails, found))
        self._through(tables.EVENTS, partial(self._events, found))
        self._through(tables.PAYLOADS, partial(self._payloads, found))
        self._through(tables.SUPPRESSED, partial(self._suppressed, found))
        history = tables.history()
        for table in (tables.REQUESTS, tables.ACCOUNTS, tables.BULKS, history):
            if table is not None:
                self._through(table, partial(self._others, found, table))
        return found

    def _through(self, table: Table, work: Callable[[Sequence[Any]], None]) -> None:
        for portion in table.portions():
            candidates = table.candidates(portion, self.person)
            keys = list(candidates.values_list("pk", flat=True))
            for start in range(0, len(keys), _AT_ONCE):
                work(keys[start : start + _AT_ONCE])
            self.on_progress(tables.PORTION)

    def _in_transaction(self, work: Callable[[], None], using: str) -> None:
        def whole() -> None:
            with transaction.atomic(using=using):
                work()

        in_tries(whole, using=using)

    # Emails -----------------------------------------------------------------------------------

    def _emails(self, found: Found, keys: Sequence[UUID]) -> None:
        rows = Email.objects.filter(pk__in=keys).order_by()
        if self._is_dry:
            busy = _in_use(keys)
            for email in rows:
                if tables.EMAILS.changes(email, self.person):
                    self._count_email(found, email, busy)
            return
        if self.cancels:
            self._cancel([email for email in rows if self._is_party(email)])
        seen = Found()

        def work() -> None:
            nonlocal seen
            seen = Found()
            busy = _held_in_use(keys)
            locked = Email.objects.filter(pk__in=keys).select_for_update().order_by("pk")
            for email in locked:
                self._forget_in(seen, email, busy)

        self._in_transaction(work, Email.objects.db)
        _add(found, seen)

    def _count_email(self, found: Found, email: Email, busy: Collection[UUID]) -> bool:
        """Count an email; return whether it is finished, and may change."""
        if self._would_cancel(email):
            found.emails += 1
        elif email.state in UNSENT_STATES or email.pk in busy:
            if email.state in {State.SENDING, State.UNKNOWN}:
                found.ambiguous += 1
            else:
                found.waiting += 1
            return False
        elif self._is_party(email):
            found.emails += 1
            if self._is_dry and self._is_alone(email):
                found.events += EmailEvent.objects.filter(email=email).count()
        else:
            found.mentions += 1
        return True

    def _would_cancel(self, email: Email) -> bool:
        return (
            self._is_dry
            and self.cancels
            and email.state in {State.PENDING, State.SCHEDULED}
            and self._is_party(email)
        )

    def _forget_in(self, found: Found, email: Email, busy: Collection[UUID]) -> None:
        changed = tables.EMAILS.changes(email, self.person)
        if not changed:
            return
        if not self._count_email(found, email, busy):
            self._ask_for_later(email)
            return
        if "forget_when_finished" in changed:
            changed["forget_when_finished"] = _without_line(
                changed["forget_when_finished"], FORGOTTEN
            )
        if self._is_party(email):
            changed |= {"forgotten_at": timezone.now(), "text_body": None, "html_body": None}
            found.payloads += OutboxEntry.objects.filter(pk=email.pk).delete()[0]
            if self._is_alone(email):
                changed |= _changes_of_sole_recipient(email)
                found.events += _empty_events(email)
        kept = {name: changed.get(name, getattr(email, name)) for name in _SEARCHED}
        listed = [*kept["to"], *kept["cc"], *kept["bcc"]]
        changed["search_text"] = search_text(listed, kept["subject"], kept["metadata"])
        Email.objects.filter(pk=email.pk).update(**changed)

    def _is_party(self, email: Email) -> bool:
        """Return whether the person sent or got an email, or was to get it."""
        return any(map(self.person.is_at, [email.from_email, *email.recipients]))

    def _is_alone(self, email: Email) -> bool:
        """Return whether nobody else got an email to or from the person, as far as is known."""
        return self._is_party(email) and all(
            each == FORGOTTEN or self.person.is_at(each) for each in email.recipients
        )

    def _ask_for_later(self, email: Email) -> None:
        """Note who is to be forgotten, for :func:`forget_finished`."""
        lines = email.forget_when_finished.splitlines()
        if self.person.address not in lines:
            text = "\n".join([*lines, self.person.address])
            Email.objects.filter(pk=email.pk).update(forget_when_finished=text)

    def _cancel(self, emails: Sequence[Email]) -> None:
        """Cancel what waits: in the outbox, or with Truncus."""
        own = [email.pk for email in emails if email.state in OUTBOX_STATES]
        if own:
            operations.cancel(own)
        for email in emails:
            if email.state == State.SCHEDULED and email.message_id:
                with suppress(TruncusError):  # it is left, and told
                    cancel_scheduled(email)

    # The other tables -------------------------------------------------------------------------

    def _events(self, found: Found, keys: Sequence[UUID]) -> None:
        for event in EmailEvent.objects.filter(pk__in=keys).order_by().select_related("email"):
            changed = tables.EVENTS.changes(event, self.person)
            if not changed or (self._is_dry and self._goes_with_its_email(event)):
                continue
            found.events += 1
            if self.person.is_at(event.recipient):
                changed["payload"] = {}
            if not self._is_dry:
                EmailEvent.objects.filter(pk=event.pk).update(**changed)

    def _goes_with_its_email(self, event: EmailEvent) -> bool:
        email = event.email
        if email is None or email.state in UNSENT_STATES:
            return False
        return self._is_alone(email)

    def _payloads(self, found: Found, keys: Sequence[UUID]) -> None:
        """Change what is stored to be sent to others, and leave what is still to be sent."""
        seen = Found()

        def work() -> None:
            nonlocal seen
            seen = Found()
            busy = _in_use(keys) if self._is_dry else _held_in_use(keys)
            rows = OutboxEntry.objects.filter(pk__in=keys).order_by().select_related("email")
            for entry in rows:
                self._forget_in_payload(seen, entry, busy)

        self._in_transaction(work, OutboxEntry.objects.db)
        _add(found, seen)

    def _forget_in_payload(self, found: Found, entry: OutboxEntry, busy: Collection[UUID]) -> None:
        email = entry.email
        fields = read_payload(entry.payload)
        key = self.person.taken_out_of_key(entry.own_key)
        named = entry.payload if fields is None else dict(fields)
        if not self.person.is_in(named) and key == entry.own_key:
            return
        in_email = bool(tables.EMAILS.changes(email, self.person))
        if entry.pk in busy or email.state in UNSENT_STATES:
            if in_email:
                if self._would_cancel(email):
                    found.payloads += 1
                return  # counted with the email
            self._count_email(found, email, busy)
            if not self._is_dry:
                self._ask_for_later(email)
            return
        found.payloads += 1
        if self._is_dry:
            return
        same = OutboxEntry.objects.filter(pk=entry.pk)
        kept = None if fields is None else self._payload_without(fields)
        if kept is None:  # nobody can send it
            same.delete()
        else:
            same.update(payload=kept.decode(), size=len(kept), own_key=key)

    def _payload_without(self, fields: Mapping[str, Any]) -> bytes | None:
        """Return a payload as it can still be sent to others, if to anybody."""
        kept = dict(fields)
        for name in ("to", "cc", "bcc", "reply_to"):
            listed = kept.get(name)
            if isinstance(listed, list):
                kept[name] = [each for each in listed if not self.person.is_at(each)]
            if self.person.is_at(listed) or not kept.get(name):
                kept.pop(name, None)
        try:
            return payload_json(self.person.taken_out_of(kept))
        except MessageError:
            return None

    def _suppressed(self, found: Found, keys: Sequence[UUID]) -> None:
        """Let a digest stand for the address, so that nobody mails it."""
        own = SuppressedAddress.objects.filter(pk__in=keys, address=self.person.address)
        found.suppressed += own.count()
        if not self._is_dry:
            self._in_transaction(lambda: self._seal(list(own)), SuppressedAddress.objects.db)
        others = SuppressedAddress.objects.filter(pk__in=keys)
        others = others.exclude(address=self.person.address)
        found.others += self._change(tables.SUPPRESSED, list(others.values_list("pk", flat=True)))

    def _seal(self, entries: Sequence[SuppressedAddress]) -> None:
        digest = digests_of(self.person.address)[0]
        for entry in entries:
            known = SuppressedAddress.objects.filter(
                address=digest, tenant_id=entry.tenant_id, list_name=entry.list_name
            )
            if not known.exists():
                same = SuppressedAddress.objects.filter(pk=entry.pk)
                same.update(address=digest, note="", email=None)
                continue
            # Forgotten before, and suppressed anew since.
            SuppressedAddress.objects.filter(pk=entry.pk).delete()
            entry.address, entry.note, entry.email = digest, "", None
            suppression.suppress([entry])

    def _others(self, found: Found, table: Table, keys: Sequence[Any]) -> None:
        found.others += self._change(table, keys)

    def _change(self, table: Table, keys: Sequence[Any]) -> int:
        """Take the person out of rows; return how many named them."""
        count = 0
        for row in table.rows().filter(pk__in=keys).order_by():
            changed = table.changes(row, self.person)
            if not changed:
                continue
            count += 1
            if not self._is_dry:
                table.rows().filter(pk=row.pk).update(**changed)
        return count


def forget_finished(on_progress: Callable[[int], None] = lambda count: None) -> Found:
    """Forget those who were to be forgotten when emails are finished that are so now.

    Raises:
        django.db.Error: what was done before stays done.
    """
    found = Found()
    for address in sorted(_asked_for()):
        _add(found, Forgetting(person=Person(address), on_progress=on_progress).run())
    return found


def _asked_for() -> set[str]:
    asked = Email.objects.forgettable().exclude(forget_when_finished="").order_by()
    texts = asked.values_list("forget_when_finished", flat=True).distinct()
    return {line for text in texts.iterator() for line in text.splitlines()}


_SEARCHED = ("to", "cc", "bcc", "subject", "metadata")


def _changes_of_sole_recipient(email: Email) -> dict[str, Any]:
    return {
        "subject": FORGOTTEN if email.subject else "",
        "metadata": {},
        "attachments": [{**each, "filename": FORGOTTEN} for each in email.attachments],
    }


def _empty_events(email: Email) -> int:
    """Take out of the events of an email all that may be about its recipient."""
    events = EmailEvent.objects.filter(email=email)
    events.exclude(recipient="").update(recipient=FORGOTTEN)
    events.filter(reason__contains="@").update(reason="")
    return int(events.update(payload={}))


def _without_line(text: str, line: str) -> str:
    return "\n".join(each for each in text.splitlines() if each != line)


def _in_use(keys: Sequence[UUID]) -> set[UUID]:
    """Return which emails the outbox still has to do with."""
    entries = OutboxEntry.objects.filter(pk__in=keys).order_by()
    in_use = entries.filter(models.Q(is_waiting=True) | models.Q(batch__isnull=False))
    return set(in_use.values_list("pk", flat=True))


def _held_in_use(keys: Sequence[UUID]) -> set[UUID]:
    """Return the same; none of the others can be retried before the transaction ends."""
    hold_entries(keys)
    return _in_use(keys)


def _add(found: Found, seen: Found) -> None:
    for name in Found.__slots__:
        setattr(found, name, getattr(found, name) + getattr(seen, name))
