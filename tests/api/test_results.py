"""Every documented answer, in both dialects, as a value."""

import pickle
from datetime import UTC, datetime

import pytest

from truncus_django.api import contract
from truncus_django.api.errors import InvalidAnswer
from truncus_django.api.results import (
    MonthlyQuota,
    SendResult,
    read_batch,
    read_cancellation,
    read_email,
    read_events,
    read_moment,
    read_quota,
    read_replay,
    read_send,
    read_validation,
)

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


# Answers to send: the manual ----------------------------------------------------------------------


def test_manual_delivered():
    result = read_send({"status": "delivered", "message_id": "m-1"})
    assert (result.status, result.message_id, result.is_accepted) == ("delivered", "m-1", True)


@pytest.mark.parametrize(
    "reason",
    ["mailbox_full", "mailbox_does_not_exist", "no_mx_record", "connection_timeout"],
)
def test_manual_bounced_was_accepted_and_tells_the_reason(reason):
    result = read_send({"status": "bounced", "message_id": "m-1", "reason": reason})
    assert (result.reason, result.is_accepted) == (reason, True)
    assert reason in contract.BOUNCE_REASONS


@pytest.mark.parametrize("reason", ["suppression_list", "invalid_address", "domain_not_verified"])
def test_manual_rejected_was_not_accepted_and_tells_the_reason(reason):
    result = read_send({"status": "rejected", "message_id": "m-1", "reason": reason})
    assert (result.reason, result.is_accepted) == (reason, False)
    assert reason in contract.REJECTION_REASONS


# Answers to send: the SDK -------------------------------------------------------------------------


def test_sdk_sent_keeps_all_ids_and_warnings():
    result = read_send({
        "status": "sent", "message_id": "m-1", "global_message_id": "g-1",
        "provider_message_id": "ses-1", "provider": "ses", "warnings": ["no plain text"],
    })  # fmt: skip
    assert (result.message_id, result.global_message_id) == ("m-1", "g-1")
    assert (result.provider_message_id, result.provider) == ("ses-1", "ses")
    assert result.warnings == ("no plain text",)
    assert not result.is_sandbox


@pytest.mark.parametrize("body", [
    {"status": "sent", "sandbox": True},
    {"status": "sandbox"},
    {"status": "sent", "provider_message_id": "sandbox-1"},
])  # fmt: skip
def test_sandbox_is_told_in_any_of_its_forms(body):
    result = read_send(body)
    assert result.is_sandbox
    assert result.is_accepted


def test_scheduled_tells_when():
    result = read_send({"status": "scheduled", "send_at": "2026-01-01T01:00:00+01:00"})
    assert (result.send_at, result.is_accepted) == (NEW_YEAR, True)


def test_queued_tells_when_truncus_tries_again():
    result = read_send({
        "status": "queued", "message_id": "m-1", "retry_scheduled": True,
        "retry_at": "2026-01-01T00:00:00Z", "queued_for_retry": True,
    })  # fmt: skip
    assert (result.retry_at, result.is_accepted) == (NEW_YEAR, True)


def test_blocked_tells_the_suppressed_addresses_but_does_not_show_them():
    result = read_send({
        "status": "blocked", "reason": "All recipients are suppressed", "message_id": "m-1",
        "code": "ALL_RECIPIENTS_SUPPRESSED", "suppressed_addresses": ["ann@example.org"],
    })  # fmt: skip
    assert not result.is_accepted
    assert result.code == contract.SUPPRESSED_CODE
    assert result.suppressed_addresses == ("ann@example.org",)
    assert "ann@example.org" not in repr(result)


def test_duplicate_of_a_key_tells_what_became_of_the_first_send():
    result = read_send({
        "status": "duplicate", "message_id": "m-1", "email_status": "delivered",
        "created_at": "2026-01-01T00:00:00Z",
    })  # fmt: skip
    assert result.is_accepted
    assert not result.is_content_duplicate
    assert (result.message_id, result.email_status) == ("m-1", "delivered")
    assert result.created_at == NEW_YEAR


def test_duplicate_of_a_content_is_accepted_without_an_id():
    result = read_send({
        "status": "duplicate", "message": "Same content", "original_global_message_id": "g-0",
    })  # fmt: skip
    assert result.is_accepted
    assert result.is_content_duplicate
    assert (result.message_id, result.original_global_message_id) == (None, "g-0")


def test_failed_was_not_accepted():
    assert not read_send({"status": "failed", "error": "SES", "code": "PROVIDER_ERROR"}).is_accepted


def test_a_state_from_the_future_counts_as_accepted():
    assert read_send({"status": "levitating"}).is_accepted


def test_every_state_of_the_contract_is_either_accepted_or_refused():
    for status in contract.ACCEPTED_STATUSES:
        assert SendResult(status).is_accepted
    for status in contract.REFUSED_STATUSES:
        assert not SendResult(status).is_accepted


@pytest.mark.parametrize("body", [{}, {"status": ""}, {"status": 1}, {"message_id": "m"}])
def test_an_answer_without_a_state_is_invalid_and_ambiguous(body):
    with pytest.raises(InvalidAnswer) as caught:
        read_send(body)
    assert caught.value.ambiguous


def test_odd_fields_never_cost_a_send_its_result():
    result = read_send({
        "status": "sent", "message_id": None, "warnings": "one", "send_at": "soon",
        "retry_at": True, "created_at": 1e99, "suppressed_addresses": {"a": 1}, "reason": 5,
    })  # fmt: skip
    assert result == SendResult("sent", warnings=("one",))


def test_what_the_api_wrote_is_freed_of_addresses():
    result = read_send({"status": "failed", "error": "No mailbox ann@example.org"})
    assert result.error == "No mailbox <address>"


def test_results_survive_pickling():
    result = read_send({"status": "sent", "message_id": "m-1", "warnings": ["x"]})
    assert pickle.loads(pickle.dumps(result)) == result


# Batches ------------------------------------------------------------------------------------------


def test_batch_results_belong_to_their_index_in_any_order():
    batch = read_batch({
        "total": 3, "sent": 1, "queued": 0, "blocked": 1, "failed": 1,
        "results": [
            {"index": 2, "status": "failed", "error": "No", "code": "INVALID_REQUEST"},
            {"index": 0, "status": "sent", "message_id": "m-0", "provider_message_id": "ses-0",
             "global_message_id": "g-0"},
            {"index": 1, "status": "blocked", "reason": "suppressed"},
        ],
    }, size=3)  # fmt: skip
    assert [result.status for result in batch.results] == ["sent", "blocked", "failed"]
    assert batch.results[2].code == "INVALID_REQUEST"
    assert batch.count("sent", "blocked") == 2
    assert not batch.is_replay


def test_batch_results_without_index_are_in_order():
    batch = read_batch({"results": [{"status": "sent"}, {"status": "queued"}]}, size=2)
    assert [result.status for result in batch.results] == ["sent", "queued"]


def test_one_duplicate_for_a_whole_batch_accepts_each_without_an_id():
    batch = read_batch({"status": "duplicate", "message_id": "b-1", "email_status": "sent"}, size=3)
    assert batch.is_replay
    assert [result.status for result in batch.results] == ["duplicate"] * 3
    assert all(result.is_accepted and result.message_id is None for result in batch.results)


@pytest.mark.parametrize("body", [
    {},
    {"status": "sent"},
    {"results": [{"index": 0, "status": "sent"}]},
    {"results": [{"index": 0, "status": "sent"}, {"index": 0, "status": "sent"}]},
    {"results": [{"index": 0, "status": "sent"}, {"index": 2, "status": "sent"}]},
    {"results": [{"index": 0, "status": "sent"}, {"index": -1, "status": "sent"}]},
    {"results": [{"index": 0, "status": "sent"}, {"index": "1", "status": "sent"}]},
    {"results": [{"index": 0, "status": "sent"}, "sent"]},
    {"results": [{"index": 0, "status": "sent"}, {"index": 1}]},
])  # fmt: skip
def test_a_batch_that_does_not_tell_of_each_email_is_invalid_and_ambiguous(body):
    with pytest.raises(InvalidAnswer) as caught:
        read_batch(body, size=2)
    assert caught.value.ambiguous


# Quota, validation, events, replays, cancellation -------------------------------------------------


def test_quota_is_read_from_headers():
    headers = {"X-Monthly-Limit": "3000", "X-Monthly-Sent": "1", "X-Monthly-Remaining": "2999"}
    assert read_quota(headers) == MonthlyQuota(3000, 1, 2999)


@pytest.mark.parametrize("headers", [
    {}, {"X-Monthly-Limit": "3000"},
    {"X-Monthly-Limit": "∞", "X-Monthly-Sent": "1", "X-Monthly-Remaining": "1"},
])  # fmt: skip
def test_quota_is_none_where_it_is_not_told(headers):
    assert read_quota(headers) is None


@pytest.mark.parametrize("recommendation", ["safe_to_send", "send_with_caution", "do_not_send"])
def test_validation_is_read(recommendation):
    validation = read_validation({
        "valid": True, "confidence_score": 87, "checks": {"mx": True}, "warnings": [],
        "recommendation": recommendation,
    })  # fmt: skip
    assert (validation.recommendation, validation.confidence_score) == (recommendation, 87)
    assert validation.checks == {"mx": True}


def test_events_are_read():
    (event,) = read_events({"events": [
        {"event_id": "e", "message_id": "m", "status": "delivered", "timestamp": 1767225600},
    ]})  # fmt: skip
    assert (event.event_id, event.message_id, event.status) == ("e", "m", "delivered")
    assert event.timestamp == NEW_YEAR


def test_replay_is_read():
    replay = read_replay({"replayed": True, "event_id": "e", "message_id": "m",
                          "dispatched_at": 1767225600})  # fmt: skip
    assert (replay.is_replayed, replay.event_id, replay.message_id) == (True, "e", "m")
    assert replay.dispatched_at == NEW_YEAR


def test_cancellation_is_read():
    assert read_cancellation({"id": "m-1", "status": "cancelled"}).status == contract.CANCELLED


@pytest.mark.parametrize("read", [read_validation, read_events, read_cancellation, read_email])
def test_other_answers_that_are_not_of_their_form_are_invalid(read):
    with pytest.raises(InvalidAnswer):
        read({"hello": "world"})


# An email, read back -----------------------------------------------------------------------------

COMMON = {
    "id": "m-1", "global_message_id": "g-1", "to": "ann@example.org", "cc": ["bob@example.org"],
    "bcc": [], "subject": "Reset", "domain": "example.com", "template": None,
    "status": "delivered", "provider": "ses", "sandbox": False, "provider_message_id": "ses-1",
    "scheduled_at": None, "retry_count": 2, "retry_at": "2026-01-01T00:00:00Z",
    "metadata": {"order": "42"}, "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
}  # fmt: skip


def test_every_field_of_an_email_is_read():
    email = read_email(COMMON | {"template": "welcome", "scheduled_at": "2026-01-01T00:00:00Z"})
    assert (email.id, email.global_message_id, email.provider_message_id) == ("m-1", "g-1", "ses-1")
    assert (email.to, email.cc, email.bcc) == (("ann@example.org",), ("bob@example.org",), ())
    assert (email.subject, email.domain, email.template) == ("Reset", "example.com", "welcome")
    assert (email.status, email.provider, email.is_sandbox) == ("delivered", "ses", False)
    assert (email.retry_count, email.retry_at, email.scheduled_at) == (2, NEW_YEAR, NEW_YEAR)
    assert (email.metadata, email.created_at, email.updated_at) == (
        {"order": "42"}, NEW_YEAR, NEW_YEAR,
    )  # fmt: skip


def test_representation_shows_neither_addresses_nor_content():
    shown = repr(read_email(COMMON))
    assert "m-1" in shown
    assert "@" not in shown
    assert "Reset" not in shown


def test_engagement_in_the_first_form_is_counts_and_a_time():
    email = read_email(
        COMMON | {"open_count": 3, "opened_at": "2026-01-01T00:00:00Z", "click_count": 1}
    )
    assert (email.open_count, email.click_count) == (3, 1)
    assert (email.first_opened_at, email.last_opened_at) == (NEW_YEAR, None)
    assert email.events == ()


def test_engagement_in_the_second_form_is_counted_from_its_events():
    def event(kind, hour):
        return {"id": f"{kind}-{hour}", "type": kind, "payload": {},
                "created_at": f"2026-01-01T0{hour}:00:00Z"}  # fmt: skip

    email = read_email(
        COMMON | {"events": [event("opened", 2), event("opened", 1), event("clicked", 3)]}
    )
    assert (email.open_count, email.click_count) == (2, 1)
    assert email.first_opened_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
    assert email.last_opened_at == datetime(2026, 1, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (1_767_225_600, NEW_YEAR),
        ("1767225600", NEW_YEAR),
        ("2026-01-01T02:00:00+02:00", NEW_YEAR),
        ("2026-01-01T00:00:00", NEW_YEAR),
        ("9999-12-29T23:59:59Z", datetime(9999, 12, 29, 23, 59, 59, tzinfo=UTC)),
        # What cannot be shown everywhere, or is older than Truncus, tells nothing.
        ("9999-12-31T23:59:59Z", None),
        ("9999-12-31T23:59:59-14:00", None),
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("1970-01-01T00:00:00Z", None),
        (0, None),
        (253_402_300_799, None),
        (-1, None),
        (10**400, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("soon", None),
        ([], None),
    ],
)
def test_moments_are_read_in_every_form_if_they_make_sense(value, moment):
    assert read_moment(value) == moment


@pytest.mark.parametrize("kind", contract.EVENT_TYPES)
def test_every_type_of_event_is_read(kind):
    email = read_email(COMMON | {"events": [{"id": "e", "type": kind, "payload": {"a": 1}}]})
    assert (email.events[0].type, email.events[0].payload) == (kind, {"a": 1})


def test_intelligence_lifecycle_and_latency_are_kept():
    email = read_email(COMMON | {
        "intelligence": {"failure_reason": "mailbox full", "is_retryable": True},
        "lifecycle": [{"event": "sent", "timestamp": "2026-01-01T00:00:00Z", "provider": "ses"}],
        "latency": {"total_ms": 12, "provider_accept_ms": 5, "delivery_ms": 7},
    })  # fmt: skip
    assert email.intelligence["is_retryable"]
    assert email.lifecycle[0]["event"] == "sent"
    assert email.latency["total_ms"] == 12
