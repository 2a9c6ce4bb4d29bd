"""Transactions that are surely committed at their end."""

import pytest
from django.db import transaction

from truncus_django.db.transactions import committed


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_is_open_already_is_refused():
    """Whoever opened it could roll back what a request was made for."""
    with transaction.atomic(), pytest.raises(RuntimeError), committed("default"):
        pytest.fail("It was not refused.")
