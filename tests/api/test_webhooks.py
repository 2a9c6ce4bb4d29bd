"""Webhook signatures."""

import hashlib
import hmac

import pytest

from truncus_django.api.errors import WebhookVerificationError
from truncus_django.api.webhooks import sign, verify

NOW = 1_767_225_600
BODY = b'{"event": "email.delivery", "message_id": "m-1", "status": "delivered"}'


def verify_at(now=NOW, body=BODY, timestamp=str(NOW), secrets=("s3cret",), signature=None):
    given = sign(BODY, secret="s3cret", timestamp=NOW) if signature is None else signature
    verify(body, signature=given, timestamp=timestamp, secrets=secrets, now=now)


def test_signature_is_hex_hmac_sha256_over_timestamp_dot_body():
    expected = hmac.new(b"s3cret", b"1767225600." + BODY, hashlib.sha256).hexdigest()
    assert sign(BODY, secret="s3cret", timestamp=NOW) == expected


def test_signature_is_taken_bare_and_with_its_prefix():
    verify_at()
    verify_at(signature="tcsig_" + sign(BODY, secret="s3cret", timestamp=NOW))


@pytest.mark.parametrize("secrets", [["s3cret", "new"], ["new", "s3cret"], ["", "s3cret"]])
def test_any_of_the_secrets_fits_so_that_they_can_be_rotated(secrets):
    verify_at(secrets=secrets)


def test_one_secret_may_be_given_as_a_string_and_is_not_split_into_letters():
    verify_at(secrets="s3cret")
    with pytest.raises(WebhookVerificationError):
        verify_at(secrets="s3cret", signature=sign(BODY, secret="s", timestamp=NOW))


@pytest.mark.parametrize("secrets", [[], [""], ["other"]])
def test_without_the_right_secret_everything_is_refused(secrets):
    with pytest.raises(WebhookVerificationError):
        verify_at(secrets=secrets)


def test_an_empty_secret_never_verifies():
    with pytest.raises(WebhookVerificationError):
        verify_at(secrets=[""], signature=sign(BODY, secret="", timestamp=NOW))


def test_every_secret_is_compared_in_constant_time(monkeypatch):
    compared = []
    real = hmac.compare_digest

    def compare(given, expected):
        compared.append(expected)
        return real(given, expected)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    verify_at(secrets=["s3cret", "old", "older"])
    assert len(compared) == 3
    with pytest.raises(WebhookVerificationError):
        verify_at(secrets=["old"])
    assert len(compared) == 4


def test_a_changed_body_is_refused():
    with pytest.raises(WebhookVerificationError, match="signature"):
        verify_at(body=BODY.replace(b"m-1", b"m-2"))


def test_a_changed_timestamp_is_refused():
    with pytest.raises(WebhookVerificationError, match="signature"):
        verify_at(timestamp=str(NOW + 1))


@pytest.mark.parametrize("seconds", [-300, 300])
def test_timestamps_up_to_300_seconds_off_are_taken(seconds):
    verify_at(now=NOW + seconds)


@pytest.mark.parametrize("seconds", [-301, 301])
def test_timestamps_further_off_are_refused(seconds):
    with pytest.raises(WebhookVerificationError, match="too far"):
        verify_at(now=NOW + seconds)


@pytest.mark.parametrize("timestamp", ["", "soon", "-1", "1.5", "１７６", "9" * 16])
def test_a_timestamp_that_is_no_number_of_seconds_is_refused(timestamp):
    with pytest.raises(WebhookVerificationError):
        verify_at(timestamp=timestamp)


@pytest.mark.parametrize("signature", ["", "tcsig_", "é", "0" * 64])
def test_a_signature_that_is_none_is_refused(signature):
    with pytest.raises(WebhookVerificationError):
        verify_at(signature=signature)
