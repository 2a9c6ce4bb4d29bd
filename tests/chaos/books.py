"""The books: what the writers committed, what was sent, and the rows are compared at the end."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.fallback import FALLBACK, Handed
from tests.chaos.writer import GOOD, INVALID, LISTED, REDIRECT_TO, SCHEDULED, SUPPRESSED


@dataclass(frozen=True, slots=True)
class Books:
    """What the writers know.

    Attributes:
        committed: subjects of committed emails, with their kind and whom they may reach.
        rolled_back: subjects of the others.
    """

    committed: dict[str, tuple[str, list[str]]]
    rolled_back: set[str]


def read_books(ledgers: Sequence[Path]) -> Books:
    books = Books({}, set())
    for ledger in ledgers:
        for line in ledger.read_text().splitlines():
            told = json.loads(line)
            books.committed.update(told["committed"])
            books.rolled_back.update(told["rolled_back"])
    return books


_FATES: Mapping[str, frozenset[str]] = {
    GOOD: frozenset({"sent", "delivered"}),
    SCHEDULED: frozenset({"scheduled"}),
    SUPPRESSED: frozenset({"rejected"}),
    LISTED: frozenset({"rejected"}),
    INVALID: frozenset({"failed"}),
}


def compare(
    books: Books,
    told: Mapping[str, Any],
    handed: Sequence[Handed],
    killed: Mapping[int, int],
    *,
    is_replay_told: bool,
) -> list[str]:
    """Return what differs between what was committed, what was sent, and the rows.

    Args:
        told: what Truncus was asked, and has accepted.
        handed: what the fallback mailer was given.
        killed: processes, and how many emails each could be sending at its end.
        is_replay_told: whether Truncus answers a repeated batch with what became of each email.
            If not, they count as accepted without an id, as far as anybody can know.
    """
    from truncus_django.models import Email, OutboxBatch, OutboxEntry

    found: dict[str, list[Mapping[str, Any]]] = {}
    for email in told["emails"]:
        found.setdefault(email["subject"], []).append(email)
    elsewhere: dict[str, list[Handed]] = {}
    for each in handed:
        elsewhere.setdefault(each.subject, []).append(each)
    rows = {row.subject: row for row in Email.objects.all()}
    stored = set(OutboxEntry.objects.values_list("email__subject", flat=True))
    differences = []
    for subject in {*found, *elsewhere} - books.committed.keys():
        is_known = subject in books.rolled_back
        differences.append(f"{subject}: {'rolled back' if is_known else 'unheard of'}, and sent")
    orphans = rows.keys() - books.committed.keys()
    differences += [f"{subject}: not committed, and a row" for subject in orphans]
    if Email.objects.count() != len(rows):
        differences.append("two rows for one email")
    if OutboxBatch.objects.exists():
        differences.append("requests are left in the outbox")
    for subject, (kind, reaches) in books.committed.items():
        row, emails = rows.get(subject), found.get(subject, [])
        handovers = elsewhere.get(subject, [])
        if row is None:
            differences.append(f"{subject}: committed, and no row")
            continue
        recipients = [email["recipients"] for email in emails]
        recipients += [handover.recipients for handover in handovers]
        own = [
            f"reached {each}, and not {reaches}" for each in recipients if sorted(each) != reaches
        ]
        if (subject in stored) != (row.state in {"failed", "rejected", "unknown"}):
            own.append(f"its payload is {'' if subject in stored else 'not '}stored")
        is_nameless = not is_replay_told and not row.message_id
        own += _compare_row(row, kind, emails, handovers, is_nameless=is_nameless)
        differences += [f"{subject} ({kind}), {row.state}: {each}" for each in own]
    unknown = [row.subject for row in rows.values() if row.state == "unknown"]
    return differences + _compare_unknown(unknown, found, handed, killed)


def _compare_row(
    row: Any,
    kind: str,
    emails: Sequence[Mapping[str, Any]],
    handovers: Sequence[Handed],
    *,
    is_nameless: bool,
) -> list[str]:
    """Return what differs between a row and what was sent.

    Args:
        emails: those that Truncus has taken.
        handovers: to the fallback mailer.
        is_nameless: whether nobody was told what became of it.
    """
    differences = []
    is_unknown = row.state == "unknown" and kind != SCHEDULED
    times, wanted = len(emails) + len(handovers), 0 if kind in {INVALID, LISTED} else 1
    if times > wanted or (times < wanted and not is_unknown):
        differences.append(f"taken {times} times")
    if row.sent_by != (FALLBACK if handovers or is_unknown else ""):
        differences.append(f"sent by {row.sent_by or 'Truncus'}, says its row")
    if is_unknown:
        return differences
    # The fallback mailer knows nothing of Truncus's list.
    is_like_good = handovers or (is_nameless and kind in {SCHEDULED, SUPPRESSED})
    if row.state not in _FATES[GOOD if is_like_good else kind]:
        differences.append(row.error or "in this state")
    if not all(handover.is_sent for handover in handovers):
        differences.append("its handover did not end")
    if emails and not is_nameless and row.message_id != emails[0]["id"]:
        differences.append(f"has the id {row.message_id}")
    if emails and row.idempotency_key != emails[0]["key"]:
        differences.append("has another key than it was sent under")
    return differences


def _compare_unknown(
    subjects: Sequence[str],
    found: Mapping[str, Sequence[Mapping[str, Any]]],
    handed: Sequence[Handed],
    killed: Mapping[int, int],
) -> list[str]:
    """Return what differs where nobody knows whether an email was sent.

    That may only be so where its worker was killed during the handover, and so the handover is the
    last one of its thread. A worker that was killed before it began to hand over left no trace; of
    those there are no more than could be under way.
    """
    latest = {(each.process, each.thread): each for each in handed}
    differences = []
    for subject in subjects:
        handovers = [each for each in handed if each.subject == subject]
        if found.get(subject):
            differences.append(f"{subject}: unknown, and Truncus has it")
        differences += [
            f"{subject}: unknown, and its worker lived on"
            for each in handovers
            if each.process not in killed or latest[each.process, each.thread] is not each
        ]
    most = sum(killed.values())
    if len(subjects) > most:
        differences.append(f"{len(subjects)} are unknown, and {most} were being sent by the killed")
    return differences


DIED = "of these, unknown as their worker died"


def compare_features(books: Books, handed: Sequence[Handed]) -> list[str]:
    """Return what differs where recipients are learned, and what made no difference at all."""
    from truncus_django.models import Email, SuppressedAddress

    reason = SuppressedAddress.Reason.BLOCKED
    learned = set(SuppressedAddress.objects.filter(reason=reason).values_list("address", flat=True))
    refused = set(Email.objects.filter(state="rejected").values_list("subject", flat=True))
    differences = [
        f"{subject}: refused by Truncus, and its recipient is not suppressed"
        for subject, (kind, reaches) in books.committed.items()
        if kind == SUPPRESSED and subject in refused and learned.isdisjoint(reaches)
    ]
    unused = [name for name, count in count_features(books, handed).items() if not count]
    return differences + [f"no email was {name}" for name in unused if name != DIED]


def count_features(books: Books, handed: Sequence[Handed]) -> dict[str, int]:
    """Return how many emails took another way than to Truncus and to their recipients."""
    from truncus_django.models import Email

    left_out = Email.objects.values_list("suppressed", flat=True)
    return {
        "handed to the fallback mailer": len(handed),
        DIED: Email.objects.filter(state="unknown").count(),
        "redirected by the guard": sum(REDIRECT_TO in each for _, each in books.committed.values()),
        "refused for its suppressed recipient": sum(
            kind == LISTED for kind, _ in books.committed.values()
        ),
        "sent without a suppressed recipient": sum(map(bool, left_out)),
    }


def count_requests(requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return figures of what was asked of Truncus."""
    answered = Counter(request["key"] for request in requests if request["status"] in {0, 200, 500})
    return {
        "requests": len(requests),
        "429": sum(request["status"] == 429 for request in requests),
        "401": sum(request["status"] == 401 for request in requests),
        "faults": sum(bool(request["fault"]) for request in requests),
        "replays": sum(count - 1 for count in answered.values()),
    }
