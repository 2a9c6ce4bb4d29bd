"""Why an email did not arrive, in words for support."""

import pytest

from truncus_django.admin.reasons import EXPLANATIONS, explanation_of, reason_label, short_reason
from truncus_django.api import contract
from truncus_django.models import Email
from truncus_django.outbox.stored_payload import UnreadablePayload
from truncus_django.outbox.waiting import AWAITS_SEND_AT
from truncus_django.sending.guard import NOT_ALLOWED_CODE
from truncus_django.sending.screening import SUPPRESSED_CODE
from truncus_django.states import OUTBOX_STATES, State

FEEDBACK_TYPES = ("abuse", "auth-failure", "fraud", "not-spam", "other", "virus")
"""Of RFC 5965, RFC 6430 and RFC 6591."""
OWN_CODES = (
    SUPPRESSED_CODE,
    NOT_ALLOWED_CODE,
    AWAITS_SEND_AT,
    UnreadablePayload().code,
    "suppression_unknown",
    "unexpected_error",
    "configuration",
)


@pytest.mark.parametrize(
    "reason",
    [
        *contract.BOUNCE_REASONS,
        *contract.REJECTION_REASONS,
        *FEEDBACK_TYPES,
        *sorted(contract.AUTHENTICATION_CODES | contract.DOMAIN_CODES | contract.QUOTA_CODES),
        contract.SCOPE_CODE,
        contract.SUPPRESSED_CODE,
        contract.PROVIDER_ERROR_CODE,
        contract.TRANSIENT_CODE,
        "rate_limit_exceeded",
        "RATE_LIMIT_MINUTE",
        *OWN_CODES,
    ],
)
def test_every_known_reason_has_a_name_a_sentence_and_an_advice(reason):
    found = explanation_of(Email(state=State.FAILED, error_code=reason))

    assert found in EXPLANATIONS.values()
    assert reason_label(reason) == found.name
    assert "_" not in found.name
    for sentence in (found.text, found.advice, found.while_waiting or "."):
        assert str(sentence).endswith(".")


def test_a_reason_that_is_new_is_shown_with_spaces():
    assert reason_label("new_kind_of_bounce") == "new kind of bounce"


@pytest.mark.parametrize(
    ("code", "reason", "short"),
    [
        ("DOMAIN_NOT_FOUND", "mailbox_full", "sender's domain not found"),
        ("NEW_CODE", "mailbox_full", "mailbox full"),
        ("NEW_CODE", "new_reason", "NEW CODE"),
        ("", "new_reason", "new reason"),
        ("", "", ""),
    ],
)
def test_the_short_reason_is_the_one_that_the_page_explains(code, reason, short):
    email = Email(state=State.FAILED, error_code=code, reason=reason)

    assert short_reason(email) == short
    explained = explanation_of(email)
    if explained in EXPLANATIONS.values():
        assert explained.name == short


@pytest.mark.parametrize("state", sorted(OUTBOX_STATES))
def test_what_waits_has_no_short_reason(state):
    assert short_reason(Email(state=state, error_code="DOMAIN_NOT_FOUND")) == ""


def test_no_advice_names_an_error_message_that_the_page_may_hide():
    explained = [explanation_of(Email(state=state, error_code="NEW_CODE")) for state in State]
    found = [*EXPLANATIONS.values(), *filter(None, explained)]

    advice = " ".join(f"{each.advice} {each.while_waiting}" for each in found)

    assert "below" not in advice


def test_who_has_a_full_mailbox_is_not_asked_for_another_address():
    found = explanation_of(Email(state=State.BOUNCED, reason="mailbox_full"))

    assert found.text == "The recipient's mailbox is full."
    assert "another address" not in found.advice


@pytest.mark.parametrize(
    ("code", "failed", "waits"),
    [
        ("PROVIDER_ERROR", "Send it again in some minutes.", "Nothing: it is tried again"),
        ("API_KEY_REVOKED", "Then send the email again.", "It is then sent by itself."),
        ("suppression_unknown", "Send it again later.", "Nothing: it is tried again"),
    ],
)
def test_nobody_is_told_to_send_again_what_the_outbox_still_tries(code, failed, waits):
    advice = {
        state: explanation_of(Email(state=state, error_code=code)).advice
        for state in (State.FAILED, State.SENDING)
    }

    assert failed in advice[State.FAILED]
    assert waits in advice[State.SENDING]
    assert failed not in advice[State.SENDING]


@pytest.mark.parametrize(
    "email",
    [
        Email(state=State.BOUNCED, reason="550 of a new kind"),
        Email(state=State.COMPLAINED),
        Email(state=State.FAILED, error="The certificate has expired."),
        Email(state=State.REJECTED, error="No."),
        Email(state=State.EXPIRED, error_code="PROVIDER_ERROR"),
        Email(state=State.UNKNOWN, error_code="TIMEOUT"),
        Email(state=State.UNKNOWN, sent_by="smtp"),
        Email(state=State.PENDING, error="The connection failed."),
    ],
    ids=lambda email: f"{email.state}-{email.sent_by}",
)
def test_without_a_known_reason_the_state_is_explained(email):
    found = explanation_of(email)

    assert found not in EXPLANATIONS.values()
    assert found.text
    assert found.advice


@pytest.mark.parametrize("state", [State.SENT, State.DELIVERED, State.SCHEDULED, State.PENDING])
def test_nothing_is_explained_where_nothing_went_wrong(state):
    assert explanation_of(Email(state=state)) is None
