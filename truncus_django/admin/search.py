"""Finding emails by an id, an address, or words of the subject."""

import uuid

from django.db.models import Q, QuerySet

from truncus_django.models import Email

_MOST_WORDS = 20
_LONGEST = 1000
"""Characters; databases refuse patterns that are much longer, and no email has such words."""
_MOST_WITH_ONE_ID = 200
"""The emails of a batch share their idempotency key, and a batch holds 100."""


def search(queryset: QuerySet[Email], term: str) -> QuerySet[Email]:
    """Return those emails that have ``term`` as an id, or all its words in addresses and subject.

    Ids are looked up on their own first, so that each lookup is one on an index.
    """
    term = term.strip()
    if not term:
        return queryset
    if len(term) > _LONGEST:
        return queryset.none()
    condition = Q()
    for word in list(dict.fromkeys(term.lower().split()))[:_MOST_WORDS]:
        condition &= Q(search_text__contains=word)
    with_id = _ids_of(term)
    if with_id:
        condition |= Q(pk__in=with_id)
    return queryset.filter(condition)


def _ids_of(term: str) -> list[uuid.UUID]:
    if len(term) > 255:
        return []
    condition = (
        Q(message_id=term)
        | Q(global_message_id=term)
        | Q(provider_message_id=term)
        | Q(idempotency_key=term)
    )
    own = _uuid(term)
    if own is not None:
        condition |= Q(pk=own)
    found = Email.objects.filter(condition).order_by()
    return list(found.values_list("pk", flat=True)[:_MOST_WITH_ONE_ID])


def _uuid(term: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(term)
    except ValueError:
        return None
