"""What a large table is asked without reading all of it."""

import pytest
from django.db import connection

from truncus_django.db.large_tables import distinct_values, estimated_count
from truncus_django.models import Email
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def test_the_values_of_a_column_come_in_their_order_up_to_a_limit():
    rows = Email.objects.all()
    assert distinct_values(rows, "tenant_id", limit=10) == []

    for tenant in ("b", "", "a", "b", "c"):
        Email.objects.create(state=State.SENT, tenant_id=tenant)

    assert distinct_values(rows, "tenant_id", limit=10) == ["", "a", "b", "c"]
    assert distinct_values(rows, "tenant_id", limit=2) == ["", "a"]


def test_only_sqlite_has_no_estimate():
    estimate = estimated_count(Email.objects.all())

    assert (estimate is None) == (connection.vendor == "sqlite")
    assert estimate is None or estimate >= 0
