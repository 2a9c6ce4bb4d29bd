"""That a test with a database of its own leaves nothing to the next one."""

import pytest

from truncus_django.models import Email


def test_a_test_may_use_a_database_of_its_own(shared_database):
    assert not Email.objects.exists()


def test_the_test_after_it_may_use_none():
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        Email.objects.exists()
