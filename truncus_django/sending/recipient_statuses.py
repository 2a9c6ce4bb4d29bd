"""What became of the emails of a message with merge data."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from truncus_django.api.errors import TruncusError
from truncus_django.message import TruncusStatus
from truncus_django.sending.addresses import mailbox
from truncus_django.sending.outgoing import Sent


class RecipientStatuses(Mapping[str, TruncusStatus]):
    """The status of each recipient of a message with merge data.

    An address is found in any form that merge data may give it in, also with a name.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, TruncusStatus] = {}

    def __getitem__(self, given: str) -> TruncusStatus:
        try:
            found = self._statuses.get(mailbox(given, "recipients"))
        except TruncusError:
            found = None
        if found is None:  # without the address, as errors hold none
            raise KeyError("The message has no such recipient.")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._statuses)

    def __len__(self) -> int:
        return len(self._statuses)

    def __repr__(self) -> str:
        return f"<{len(self)} recipients>"

    def add(self, recipient: str, status: TruncusStatus) -> None:
        """Add what became of one recipient's email."""
        self._statuses[recipient] = status


def note_recipients(sent: Iterable[Sent]) -> None:
    """Write what became of recipients' emails onto the messages that they were merged from."""
    for outgoing, _ in sent:
        if outgoing.original is not None:
            status: TruncusStatus = outgoing.message.truncus_status  # type: ignore[attr-defined]
            note_recipient(outgoing.original.message, outgoing.recipient, status)


def note_recipient(original: Any, recipient: str, status: TruncusStatus) -> None:
    """Write the status of one recipient's email onto the message that it was merged from."""
    known: TruncusStatus | None = getattr(original, "truncus_status", None)
    if known is None:
        known = TruncusStatus(status.status, recipients=RecipientStatuses())
    known.recipients.add(recipient, status)  # type: ignore[attr-defined]
    if known.status != status.status or (status.error and not known.error):
        known = TruncusStatus(
            status.status if known.status == status.status else "mixed",
            error=known.error or status.error,
            recipients=known.recipients,
        )
    original.truncus_status = known
