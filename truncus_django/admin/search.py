"""Finding emails by an id, an address, or words of the subject."""

import uuid
from contextlib import suppress

from django.db.models import Q, QuerySet

from truncus_django.models import Email

_MOST_WORDS = 20
_MOST_WITH_ONE_ID = 200
"""The up to 100 emails of a batch share an idempotency key."""


def search(queryset: QuerySet[Email], term: str) -> QuerySet[Email]:
    """Return the emails with ``term`` as an id, or with all its words in addresses and subject.

    Ids are looked up on their own first, so that each lookup uses an index.
    """
    term = term.strip()
    condition = Q()
    for word in term.lower().split()[:_MOST_WORDS]:
        condition &= Q(search_text__contains=word)
    if with_id := _with_id(term):
        condition |= Q(pk__in=with_id)
    return queryset.filter(condition)


def _with_id(term: str) -> list[uuid.UUID]:
    if not term:
        return []
    condition = (
        Q(message_id=term)
        | Q(global_message_id=term)
        | Q(provider_message_id=term)
        | Q(idempotency_key=term)
    )
    with suppress(ValueError):
        condition |= Q(pk=uuid.UUID(term))
    found = Email.objects.filter(condition).order_by()
    return list(found.values_list("pk", flat=True)[:_MOST_WITH_ONE_ID])
