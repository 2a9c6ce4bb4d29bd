"""Puts emails into the outbox in transactions of all sizes, some rolled back; keeps a ledger.

Each line of the ledger is one transaction that is over: which emails it committed, of what kind
they are and whom they may reach, and which were rolled back.
"""

import argparse
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import django
from django.core.mail import EmailMessage

GOOD, INVALID, SCHEDULED = "good", "invalid", "scheduled"
SUPPRESSED, LISTED = "suppressed", "listed"
"""Their recipient is on Truncus's list, or on the site's own."""
ALLOWED, REDIRECT_TO = "*@example.org", "developers@example.com"
"""Whom the guard lets through, and who gets the emails to all others."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What is known of an email, whatever way it takes.

    Attributes:
        reaches: the addresses that it may reach, and must if it is sent.
        suppresses: those who are suppressed once it waits in the outbox.
    """

    kind: str
    reaches: list[str]
    suppresses: list[str]


def _spoil(sender: object, payload: dict[str, Any], **kwargs: Any) -> None:
    """Make of some emails what Truncus refuses, as a receiver of a project may do by mistake."""
    if payload.get("metadata", {}).get("spoil"):
        payload["reply_to"] = "nobody@localhost@"


class _RolledBack(Exception):
    """Ends a transaction as an error of the caller's would."""


class Writer:
    """One of several writers.

    Args:
        name: tells its emails from those of others.
        seed: of all its choices.
        has_all_features: whether the guard is on, and recipients are suppressed.
    """

    def __init__(self, name: str, seed: int, *, has_all_features: bool) -> None:
        self._name = name
        self._has_all_features = has_all_features
        self._random = random.Random(f"{seed}-{name}")
        self._count = 0
        self.committed: dict[str, tuple[str, list[str]]] = {}
        self.rolled_back: list[str] = []

    def transact(self, most: int) -> None:
        """Make one transaction with up to ``most`` emails; remember what became of them."""
        from django.db import transaction

        chance = self._random
        size = min(most, chance.choice([1, 1, 1, 2, 3, 5, 10, 40, 120]))
        written: dict[str, tuple[str, list[str]]] = {}
        self.committed, self.rolled_back = {}, []
        try:
            with transaction.atomic():
                while size > 0:
                    part = chance.randint(1, size)
                    size -= part
                    messages = self._messages(part)
                    if chance.random() < 0.1:
                        self._send_and_regret(messages)
                        continue
                    self._send(messages)
                    written |= {
                        message.subject: (letter.kind, letter.reaches)
                        for message, letter in messages.items()
                    }
                if chance.random() < 0.15:
                    raise _RolledBack
        except _RolledBack:
            self.rolled_back += written
        else:
            self.committed = written

    def _send_and_regret(self, messages: Mapping[EmailMessage, Letter]) -> None:
        """Send in a savepoint that is rolled back; the transaction goes on."""
        from django.db import transaction

        try:
            with transaction.atomic():
                self._send(messages)
                raise _RolledBack
        except _RolledBack:
            self.rolled_back += [message.subject for message in messages]

    def _send(self, messages: Mapping[EmailMessage, Letter]) -> None:
        """Send; then suppress, so that whoever takes them from the outbox must see it."""
        from truncus_django.backend import TruncusBackend
        from truncus_django.suppression import suppress

        accepted = TruncusBackend().send_messages(list(messages))
        assert accepted == len(messages)
        for letter in messages.values():
            for address in letter.suppresses:
                assert suppress(address)

    def _messages(self, count: int) -> dict[EmailMessage, Letter]:
        return dict(self._message() for _ in range(count))

    def _message(self) -> tuple[EmailMessage, Letter]:
        from truncus_django.message import TruncusMessage

        chance = self._random
        self._count += 1
        subject = f"{self._name}-{self._count}"
        kind = chance.choices([GOOD, INVALID, SUPPRESSED, SCHEDULED], [96, 0.6, 1, 1])[0]
        if self._has_all_features and kind == GOOD and chance.random() < 0.05:
            kind = LISTED
        to, cc, letter = self._recipients(subject, kind)
        options: dict[str, Any] = {"cc": cc}
        if kind == INVALID:
            options["metadata"] = {"spoil": "yes"}
        if kind == SCHEDULED:
            options["send_at"] = datetime.now(UTC) + timedelta(days=1)
        if chance.random() < 0.02:
            options["idempotency_key"] = f"own-{subject}"
        if chance.random() < 0.2:
            options["priority"] = chance.choice(["high", "low"])
        if chance.random() < 0.02:
            options["expires_at"] = timedelta(hours=1)
        sender = chance.choice(["shop@example.com", "news@example.net"])
        message = TruncusMessage(subject, "It is on its way.", sender, to, **options)
        if chance.random() < 0.03:
            size = chance.randint(1, 50_000)
            message.attach("invoice.bin", chance.randbytes(size), "application/octet-stream")
        return message, letter

    def _recipients(self, subject: str, kind: str) -> tuple[list[str], list[str], Letter]:
        """Return whom an email is for, who gets a copy, and what that comes to."""
        chance, name = self._random, "suppressed" if kind == SUPPRESSED else "customer"
        to = f"{name}+{subject}@example.org"
        if not self._has_all_features or kind == SUPPRESSED:
            return [to], [], Letter(kind, [to], [])
        if chance.random() < 0.2:
            to = f"{name}+{subject}@example.net"  # whom the guard does not let through
        if kind == LISTED:
            return [to], [], Letter(kind, [], [to])
        copies = chance.choices([[], ["listed"], ["stranger"]], [90, 5, 5])[0]
        cc = [f"{each}+{subject}@example.net" for each in copies]
        wanted = {to, *cc} if copies == ["stranger"] else {to}
        reaches = {each if each.endswith("@example.org") else REDIRECT_TO for each in wanted}
        suppresses = cc if copies == ["listed"] else []
        return [to], cc, Letter(kind, sorted(reaches), suppresses)


def main() -> None:
    """Write as many emails as were asked for, in about so many seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--mails", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--all-features", action="store_true")
    told = parser.parse_args()
    django.setup()
    from truncus_django.signals import pre_send

    pre_send.connect(_spoil)
    writer = Writer(told.name, told.seed, has_all_features=told.all_features)
    count, began = 0, time.monotonic()
    with told.ledger.open("w") as ledger:
        while count < told.mails:
            writer.transact(told.mails - count)
            count += len(writer.committed)
            line = {"committed": writer.committed, "rolled_back": writer.rolled_back}
            ledger.write(json.dumps(line) + "\n")
            ledger.flush()
            due = began + told.seconds * count / told.mails
            time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
