"""Opens and clicks: counted once each, whichever of webhook and sync reports them.

Nothing in a webhook says which of the opens in an answer it is about, and their times may differ.
But an answer covers everything that had happened by then, as a list or as a number: a webhook
about something before that adds nothing, one about something after it is one more. So there are

    max(webhooks, the most that an answer counted + webhooks later than all answers)

in whatever order they come. ``Email.answers_until`` is how far the answers reach, by Truncus's
clock, which dates the webhooks too: ours has no part in it. The most that an answer counted is
what a count has beyond the later webhooks, as long as it is more than the webhooks alone. For
example, an answer counts 3 opens, then 1 later webhook comes: the count is 4.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models import Count, F, Max, Q

from truncus_django.api.results import EmailDetails
from truncus_django.db.timestamps import latest, storable_moment
from truncus_django.log.transitions import Changes
from truncus_django.models import Email, EmailEvent
from truncus_django.states import CLICKED, OPENED

COUNT_FIELDS: Mapping[str, str] = {OPENED: "open_count", CLICKED: "click_count"}
"""By type of event, the field that counts it."""

CLOCKS_APART = timedelta(minutes=10)
"""No clock is taken to be further behind Truncus's. (One that is more than 300 seconds behind
refuses all of its webhooks.)"""

_LARGEST_COUNT = 2**31 - 1
"""What a column of counts holds on every database."""

WebhookCounts = Counter[tuple[str, str]]
"""Numbers of webhooks, by message id and type of event."""


def is_after_answers(event: EmailEvent, email: Email) -> bool:
    """Return whether this is a webhook about something later than all answers about an email."""
    is_webhook = event.source == EmailEvent.Source.WEBHOOK
    return (
        is_webhook and email.answers_until is not None and event.occurred_at > email.answers_until
    )


def count_webhooks(
    emails: Mapping[str, Email], new_after_answers: WebhookCounts, changes: Changes
) -> tuple[WebhookCounts, WebhookCounts]:
    """Count opens and clicks of emails by the webhooks about them.

    Args:
        new_after_answers: how many more webhooks are later than all answers.

    Returns:
        the webhooks about opens and clicks, and those of them that are later than all answers.
        Zeros are among the first for events that only answers reported.
    """
    webhooks, after_answers = WebhookCounts(), WebhookCounts()
    if not emails:
        return webhooks, after_answers
    by_webhook = Q(source=EmailEvent.Source.WEBHOOK)
    rows = (
        EmailEvent.objects.filter(message_id__in=emails.keys(), type__in=COUNT_FIELDS.keys())
        .exclude(email=None)
        .order_by()
        .values_list("message_id", "type")
        .annotate(
            last=Max("occurred_at"),
            webhooks=Count("pk", filter=by_webhook),
            after_answers=Count(
                "pk", filter=by_webhook & Q(occurred_at__gt=F("email__answers_until"))
            ),
        )
    )
    for message_id, word, last, count, count_after in rows:
        email, name = emails[message_id], COUNT_FIELDS[word]
        webhooks[message_id, word], after_answers[message_id, word] = count, count_after
        known = getattr(email, name) + new_after_answers[message_id, word]
        changes.set(email, name, min(max(known, count), _LARGEST_COUNT))
        if word == OPENED:
            changes.set(email, "last_opened_at", latest(email.first_opened_at, last))
    return webhooks, after_answers


def count_first_report(email: Email, event: EmailEvent, changes: Changes) -> None:
    """Count a new webhook about an email that no answer has told of: each is one more."""
    name = COUNT_FIELDS.get(event.type)
    if name is None:
        return
    changes.set(email, name, min(getattr(email, name) + 1, _LARGEST_COUNT))
    if event.type == OPENED:
        last = latest(email.first_opened_at, email.last_opened_at, event.occurred_at)
        changes.set(email, "last_opened_at", last)


def count_answers(
    emails: Mapping[str, Email],
    details: Mapping[str, EmailDetails],
    webhooks: WebhookCounts,
    after_answers: WebhookCounts,
    changes: Changes,
    *,
    now: datetime,
) -> None:
    """Count opens and clicks of emails by answers, and note how far the answers reach.

    Args:
        webhooks, after_answers: what :func:`count_webhooks` returned.
    """
    before = {message_id: email.answers_until for message_id, email in emails.items()}
    for message_id, email in emails.items():
        email.answers_until = latest(email.answers_until, _reach(details[message_id], now))
    counted = {message_id: emails[message_id] for message_id, _ in webhooks}
    still_after = _count_after_answers(counted)
    for message_id, email in emails.items():
        for word, name in COUNT_FIELDS.items():
            count, known = webhooks[message_id, word], getattr(email, name)
            answered = getattr(details[message_id], name)
            if before[message_id] is not None and known > count:
                answered = max(answered, known - after_answers[message_id, word])
            total = max(count, answered + still_after[message_id, word])
            changes.set(email, name, min(total, _LARGEST_COUNT))
        if (message_id, OPENED) not in webhooks:  # only the first open is known
            changes.set(email, "last_opened_at", email.first_opened_at)


def _count_after_answers(emails: Mapping[str, Email]) -> WebhookCounts:
    """Count the webhooks about opens and clicks that are later than all answers."""
    reaches = [email.answers_until for email in emails.values() if email.answers_until is not None]
    if not reaches:
        return WebhookCounts()
    found = EmailEvent.objects.filter(
        message_id__in=emails.keys(), type__in=COUNT_FIELDS.keys(), occurred_at__gt=min(reaches)
    )
    events = found.exclude(email=None).only("message_id", "type", "source", "occurred_at")
    return WebhookCounts(
        (event.message_id, event.type)
        for event in events.order_by()
        if is_after_answers(event, emails[event.message_id])
    )


def _reach(details: EmailDetails, now: datetime) -> datetime:
    """Return until when an answer covers everything, by Truncus's clock.

    That is when it was made: the end of the second in the answer's ``Date``, or the present where
    it has none. Where it reports something later, that clock is behind by an unknown while.
    """
    answered_at = details.answered_at
    made_at = storable_moment(answered_at + timedelta(seconds=1) if answered_at else now)
    moments = [event.created_at for event in details.events]
    moments += [details.created_at, details.updated_at, details.first_opened_at]
    known = [storable_moment(moment) for moment in moments if moment is not None]
    last = max(known, default=made_at)
    return last + CLOCKS_APART if last > made_at else made_at
