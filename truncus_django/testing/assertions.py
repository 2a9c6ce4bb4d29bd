"""Assertions about what was sent; their failures say what is there instead."""

import re
from collections.abc import Iterator, Sequence

from truncus_django.testing.criteria import Criterion, criteria_of
from truncus_django.testing.sent import sent_emails
from truncus_django.testing.sent_email import SentEmail

_MAX_SHOWN = 10


def assert_email_sent(
    *,
    to: str | Sequence[str] | None = None,
    subject: str | re.Pattern[str] | None = None,
    from_email: str | None = None,
    text_contains: str | re.Pattern[str] | None = None,
    html_contains: str | re.Pattern[str] | None = None,
    link: str | re.Pattern[str] | None = None,
    count: int | None = None,
) -> SentEmail:
    """Check that an email was sent that is as described, and return the newest such email.

    It looks at what was sent in this test: into Django's memory, to the emulator in use, and into
    the outbox, where it may still wait. Of a message with merge data, each recipient's email counts
    for itself. Nothing given means any email.

    Args:
        to: an address that is among the recipients in ``to``, or a list that is all of them; names
            and capital letters do not count.
        subject: the whole subject, or a compiled pattern that is found in it.
        from_email: the sender; given with a name, the name counts, too.
        text_contains: what the text contains, or a compiled pattern that is found in it.
        html_contains: what the HTML contains, as it is written there, or a pattern.
        link: one of its links, or a compiled pattern that is found in one. What begins with ``/``
            is compared with the path alone, and with query and fragment where it has them.
        count: how many such emails there are, exactly; at least one if ``None``.

    Raises:
        AssertionError: there are none, or not so many; it shows the nearest and what differs.
        TypeError: an argument is of a wrong type.
        ValueError: ``count`` is less than 1, or an address is malformed.
    """
    __tracebackhide__ = True
    if count is not None and count < 1:
        raise ValueError("count must be 1 or more; assert_no_email_sent() checks for none.")
    criteria = criteria_of(
        to=to,
        subject=subject,
        from_email=from_email,
        text_contains=text_contains,
        html_contains=html_contains,
        link=link,
    )
    emails = sent_emails()
    matching = _matching(emails, criteria)
    if count is None and not matching:
        raise AssertionError("\n".join(_why_none(emails, criteria)))
    if count is not None and len(matching) != count:
        raise AssertionError("\n".join(_why_not_so_many(emails, matching, criteria, count)))
    return matching[-1]


def assert_no_email_sent(
    *,
    to: str | Sequence[str] | None = None,
    subject: str | re.Pattern[str] | None = None,
    from_email: str | None = None,
    text_contains: str | re.Pattern[str] | None = None,
    html_contains: str | re.Pattern[str] | None = None,
    link: str | re.Pattern[str] | None = None,
) -> None:
    """Check that no email was sent that is as described; with nothing given, none at all.

    The arguments are those of :func:`assert_email_sent`.

    Raises:
        AssertionError: there is one; it shows them.
        TypeError: an argument is of a wrong type.
        ValueError: an address is malformed.
    """
    __tracebackhide__ = True
    criteria = criteria_of(
        to=to,
        subject=subject,
        from_email=from_email,
        text_contains=text_contains,
        html_contains=html_contains,
        link=link,
    )
    emails = sent_emails()
    matching = _matching(emails, criteria)
    if matching:
        of_all = f", of {len(emails)} in all" if len(matching) < len(emails) else ""
        head = f"{_count(len(matching))} sent that should not be{of_all}:"
        raise AssertionError("\n".join([head, *_summaries(matching)]))


def _matching(emails: Sequence[SentEmail], criteria: Sequence[Criterion]) -> list[SentEmail]:
    return [email for email in emails if all(criterion.is_met_by(email) for criterion in criteria)]


# What a failure says ------------------------------------------------------------------------------


def _why_none(emails: Sequence[SentEmail], criteria: Sequence[Criterion]) -> Iterator[str]:
    if not emails:
        yield "No email was sent."
        yield (
            "What waits in transaction.on_commit() is sent after a commit, which a TestCase does "
            "not make: see captureOnCommitCallbacks()."
        )
        return
    yield f"No email is as expected; {_count(len(emails))} sent."
    yield from _nearest(emails, criteria)


def _why_not_so_many(
    emails: Sequence[SentEmail],
    matching: Sequence[SentEmail],
    criteria: Sequence[Criterion],
    count: int,
) -> Iterator[str]:
    if not matching:
        yield from _why_none(emails, criteria)
        return
    yield f"{count} expected, and {len(matching)} of {len(emails)} emails are as expected:"
    yield from _summaries(matching)
    others = [email for email in emails if email not in matching]
    if others and len(matching) < count:
        yield from _nearest(others, criteria)


def _nearest(emails: Sequence[SentEmail], criteria: Sequence[Criterion]) -> Iterator[str]:
    """Yield which email comes closest, and what is different about it."""

    def closeness(email: SentEmail) -> tuple[int, float]:
        unmet = [criterion for criterion in criteria if not criterion.is_met_by(email)]
        return -len(unmet), sum(criterion.closeness(email) for criterion in unmet)

    nearest = max(reversed(emails), key=closeness)
    yield "The nearest:"
    yield f"  {_summary(nearest)}"
    met = [criterion.name for criterion in criteria if criterion.is_met_by(nearest)]
    if met:
        yield f"As expected: {', '.join(met)}."
    yield "Different:"
    for criterion in criteria:
        if criterion.name not in met:
            yield f"  {criterion.name}"
            yield from (f"    {line}" for line in criterion.difference(nearest))


def _count(number: int) -> str:
    return "1 email was" if number == 1 else f"{number} emails were"


def _summaries(emails: Sequence[SentEmail]) -> Iterator[str]:
    for email in emails[:_MAX_SHOWN]:
        yield f"  {_summary(email)}"
    if len(emails) > _MAX_SHOWN:
        yield f"  and {len(emails) - _MAX_SHOWN} more"


def _summary(email: SentEmail) -> str:
    waits = " (waits in the outbox)" if email.email_pk is not None else ""
    return f"{email.subject!r} to {', '.join(email.to) or 'nobody'}{waits}"
