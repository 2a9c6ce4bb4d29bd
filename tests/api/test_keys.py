"""API keys and idempotency keys."""

import pytest

from truncus_django.api.errors import ConfigurationError, MessageError
from truncus_django.api.keys import check_api_key, check_idempotency_key, new_idempotency_key


@pytest.mark.parametrize("key", ["tr_live_" + "a1" * 32, "tr_test_unit"])
def test_truncus_keys_are_taken(key):
    assert check_api_key(key) == key


@pytest.mark.parametrize(
    "key",
    ["", "sk_live_1", "tr_live_ 1", "tr_live_1\n", "tr_live_é", "tr_live_1\r\nX-Evil: 1",
     "tr_live_...", "tr_live_…"],
)  # fmt: skip
def test_what_cannot_be_a_key_is_refused_without_repeating_it(key):
    with pytest.raises(ConfigurationError) as caught:
        check_api_key(key)
    assert not key or key not in str(caught.value)


def test_missing_key_says_where_to_set_it():
    with pytest.raises(ConfigurationError, match="TRUNCUS_API_KEY"):
        check_api_key("")


def test_new_idempotency_keys_are_valid_and_never_the_same():
    keys = {check_idempotency_key(new_idempotency_key()) for _ in range(100)}
    assert len(keys) == 100


def test_idempotency_keys_may_hold_any_printable_ascii_up_to_255():
    assert check_idempotency_key("order 42/ä".replace("ä", "a")) == "order 42/a"
    assert len(check_idempotency_key("k" * 255)) == 255


@pytest.mark.parametrize("key", ["", " k", "k ", "k\n", "k\x00", "kä", "k" * 256])
def test_idempotency_keys_that_no_header_can_carry_are_refused(key):
    with pytest.raises(MessageError):
        check_idempotency_key(key)
