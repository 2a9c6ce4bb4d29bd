"""Puts emails into the outbox in transactions of all sizes, some rolled back; keeps a ledger.

Each line of the ledger is one transaction that is over: which emails it committed, and of what
kind they are, and which were rolled back.
"""

import argparse
import json
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import django
from django.core.mail import EmailMessage

GOOD, INVALID, SUPPRESSED, SCHEDULED = "good", "invalid", "suppressed", "scheduled"


def _spoil(sender: object, payload: dict[str, Any], **kwargs: Any) -> None:
    """Make of some emails what Truncus refuses, as a receiver of a project may do by mistake."""
    if payload.get("metadata", {}).get("spoil"):
        payload["to"] = "nobody@localhost@"


class _RolledBack(Exception):
    """Ends a transaction as an error of the caller's would."""


class Writer:
    """One of several writers.

    Args:
        name: tells its emails from those of others.
        seed: of all its choices.
    """

    def __init__(self, name: str, seed: int) -> None:
        self._name = name
        self._random = random.Random(f"{seed}-{name}")
        self._count = 0
        self.committed: dict[str, str] = {}
        self.rolled_back: list[str] = []

    def transact(self, most: int) -> None:
        """Make one transaction with up to ``most`` emails; remember what became of them."""
        from django.db import transaction

        chance = self._random
        size = min(most, chance.choice([1, 1, 1, 2, 3, 5, 10, 40, 120]))
        written: dict[str, str] = {}
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
                    self._send(list(messages))
                    written |= {message.subject: kind for message, kind in messages.items()}
                if chance.random() < 0.15:
                    raise _RolledBack
        except _RolledBack:
            self.rolled_back += written
        else:
            self.committed = written

    def _send_and_regret(self, messages: dict[EmailMessage, str]) -> None:
        """Send in a savepoint that is rolled back; the transaction goes on."""
        from django.db import transaction

        try:
            with transaction.atomic():
                self._send(list(messages))
                raise _RolledBack
        except _RolledBack:
            self.rolled_back += [message.subject for message in messages]

    def _send(self, messages: list[EmailMessage]) -> None:
        from truncus_django.backend import TruncusBackend

        accepted = TruncusBackend().send_messages(messages)
        assert accepted == len(messages)

    def _messages(self, count: int) -> dict[EmailMessage, str]:
        return dict(self._message() for _ in range(count))

    def _message(self) -> tuple[EmailMessage, str]:
        from truncus_django.message import TruncusMessage

        chance = self._random
        self._count += 1
        subject = f"{self._name}-{self._count}"
        kind = chance.choices([GOOD, INVALID, SUPPRESSED, SCHEDULED], [96, 0.6, 1, 1])[0]
        options = {}
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
        to = f"{'suppressed' if kind == SUPPRESSED else 'customer'}+{subject}@example.org"
        sender = chance.choice(["shop@example.com", "news@example.net"])
        message = TruncusMessage(subject, "It is on its way.", sender, [to], **options)
        if chance.random() < 0.03:
            size = chance.randint(1, 50_000)
            message.attach("invoice.bin", chance.randbytes(size), "application/octet-stream")
        return message, kind


def main() -> None:
    """Write as many emails as were asked for, in about so many seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--mails", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    told = parser.parse_args()
    django.setup()
    from truncus_django.signals import pre_send

    pre_send.connect(_spoil)
    writer, count, began = Writer(told.name, told.seed), 0, time.monotonic()
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
