"""Which messages share a request, and what a refusal means for them."""

import logging
from collections.abc import Sequence
from unittest.mock import ANY

import pytest
from django.core.mail import EmailMessage

from truncus_django.api.capabilities import Capabilities, WireFormat
from truncus_django.api.encoding import EmailFields
from truncus_django.api.errors import (
    AnswerLost,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    DomainError,
    EmailRefused,
    InvalidRequest,
    MessageError,
    OutcomeUnknown,
    QuotaExceeded,
    RateLimited,
    ScopeError,
    ServerError,
    TLSError,
    TruncusError,
)
from truncus_django.api.results import BatchResult, SendResult
from truncus_django.sending.ambiguous import forget, recall
from truncus_django.sending.direct import (
    MAX_BATCH_BYTES,
    note_acceptance,
    plan,
    refusal_of,
    send_batches,
)
from truncus_django.sending.outgoing import Batch, OutgoingMessage
from truncus_django.sending.payload import Payload

NOW = 1_767_225_600.0
DAY = 24 * 60 * 60


def outgoing(subject="0", *, sender="shop@example.com", key=None, sandbox=False, size=100, now=NOW):
    """A message on its way, with what an earlier send of an equal one has left."""
    email = EmailFields({"from": sender, "to": "ann@example.org", "subject": subject, "text": "T"})
    payload = Payload(email=email, idempotency_key=key, is_sandbox=sandbox, size=size)
    return OutgoingMessage(int(subject), EmailMessage(subject), payload)


def again(outgoing_messages: Sequence[OutgoingMessage]) -> list[OutgoingMessage]:
    """The same messages, given to a second send."""
    return [
        OutgoingMessage(one.index, one.message, one.payload, recall(one, Api(), is_sandbox=False))
        for one in outgoing_messages
    ]


class Api:
    """Stands in for the client: accepts all, but for emails that ``refuse`` has an error for."""

    account = "account"
    wire_format = WireFormat(Capabilities(), is_pinned=False)

    def __init__(self, refuse=lambda subjects: None):
        self.requests: list[list[str]] = []
        self.keys: list[str] = []
        self._refuse = refuse

    def send(self, email, *, idempotency_key, sandbox):
        return self._results([email], idempotency_key)[0]

    def send_batch(self, emails, *, idempotency_key, sandbox, wire_format):
        return BatchResult(self._results(emails, idempotency_key))

    def _results(self, emails, key):
        subjects = [email["subject"] for email in emails]
        self.requests.append(subjects)
        self.keys.append(key)
        error = self._refuse(subjects)
        if error is not None:
            raise error
        return tuple(SendResult("sent", message_id=subject) for subject in subjects)


def always(error: BaseException):
    return Api(lambda subjects: error)


def send(api: Api, outgoing_messages: Sequence[OutgoingMessage], *, now=NOW) -> list[type | None]:
    """Send and return the kind of each message's error."""
    list(send_batches(api, plan(outgoing_messages, now=now), now=now))
    return [type(one.error) if one.error else None for one in outgoing_messages]


def outgoing_messages(count, **options):
    return [outgoing(str(number), **options) for number in range(count)]


# The plan -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "sizes"), [
    (0, []), (1, [1]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50]),
])  # fmt: skip
def test_messages_share_requests_of_up_to_100(count, sizes):
    assert [
        len(batch.outgoing_messages) for batch in plan(outgoing_messages(count), now=NOW)
    ] == sizes


def test_each_request_has_a_key_of_its_own():
    assert len({batch.key for batch in plan(outgoing_messages(250), now=NOW)}) == 3


def test_requests_are_kept_within_a_bound_of_bytes():
    large = outgoing_messages(3, size=MAX_BATCH_BYTES // 2)
    assert [len(batch.outgoing_messages) for batch in plan(large, now=NOW)] == [2, 1]


def test_one_message_larger_than_the_bound_still_goes():
    assert len(list(plan([outgoing(size=MAX_BATCH_BYTES * 2)], now=NOW))) == 1


def test_sandbox_and_real_messages_are_never_in_one_request():
    mixed = [outgoing(str(number), sandbox=number % 2 == 1) for number in range(4)]
    planned = plan(mixed, now=NOW)
    assert [[one.index for one in batch.outgoing_messages] for batch in planned] == [[0, 2], [1, 3]]


def test_a_key_of_its_own_goes_alone():
    planned = list(plan([outgoing("0"), outgoing("1", key="mine"), outgoing("2")], now=NOW))
    assert {batch.key: len(batch.outgoing_messages) for batch in planned}["mine"] == 1
    assert sorted(len(batch.outgoing_messages) for batch in planned) == [1, 2]


def test_what_is_cancelled_or_broken_is_not_planned():
    cancelled, broken = outgoing("0"), outgoing("1")
    cancelled.is_cancelled = True
    broken.error = MessageError("Broken")
    assert list(plan([cancelled, broken, OutgoingMessage(2, EmailMessage())], now=NOW)) == []


# Requests -----------------------------------------------------------------------------------------


def test_every_parcel_gets_its_result_key_and_batch_size():
    sent = outgoing_messages(3)
    api = Api()
    send(api, sent)
    assert [one.result.message_id for one in sent] == ["0", "1", "2"]
    assert {one.key for one in sent} == set(api.keys)
    assert {one.batch_size for one in sent} == {3}


def test_one_bad_message_is_found_by_halving_and_the_others_are_sent():
    api = Api(lambda subjects: InvalidRequest("No", status=400) if "5" in subjects else None)
    kinds = send(api, outgoing_messages(8))
    assert kinds == [None] * 5 + [InvalidRequest] + [None] * 2
    assert api.requests[-1] == ["6", "7"]
    assert [len(request) for request in api.requests] == [8, 4, 4, 2, 1, 1, 2]
    assert len(set(api.keys)) == len(api.keys)


@pytest.mark.parametrize("error", [
    InvalidRequest("No", status=413), EmailRefused("No", status=422), MessageError("No JSON"),
])  # fmt: skip
def test_all_that_may_be_the_fault_of_one_message_is_halved(error):
    api = Api(lambda subjects: error if "1" in subjects else None)
    assert send(api, outgoing_messages(2)) == [None, type(error)]


def test_a_refused_domain_costs_only_the_messages_of_that_domain():
    def refuse(subjects):
        return DomainError("No", code="DOMAIN_PAUSED") if "1" in subjects else None

    mixed = [
        outgoing("0", sender="Shop <a@Good.example>"),
        outgoing("1", sender="Shop <b@paused.example>"),
        outgoing("2", sender="c@good.example"),
    ]
    api = Api(refuse)
    assert send(api, mixed) == [None, DomainError, None]
    assert api.requests == [["0", "1", "2"], ["0", "2"], ["1"]]


def test_messages_of_one_refused_domain_are_not_tried_one_by_one():
    api = always(DomainError("No", code="DOMAIN_PAUSED"))
    assert send(api, outgoing_messages(50)) == [DomainError] * 50
    assert len(api.requests) == 1


@pytest.mark.parametrize("error", [
    AuthenticationError("No"), ScopeError("No"), TLSError("No"), ConnectionFailed("No"),
    RateLimited("Wait"), QuotaExceeded("Used up", code="MONTHLY_LIMIT_EXCEEDED"),
    ConfigurationError("A proxy of no use"), AnswerLost("Lost", code="TIMEOUT", ambiguous=True),
])  # fmt: skip
def test_an_error_of_the_whole_account_stops_the_rest(error):
    api = always(error)
    assert send(api, outgoing_messages(250)) == [type(error)] * 250
    assert len(api.requests) == 1


def test_an_error_of_the_whole_account_stops_the_other_halves_too():
    errors: list[TruncusError] = [InvalidRequest("No"), AuthenticationError("No")]
    api = Api(lambda subjects: errors.pop(0))
    assert send(api, outgoing_messages(4)) == [AuthenticationError] * 4
    assert len(api.requests) == 2


@pytest.mark.parametrize("error", [
    ServerError("Failed"), AnswerLost("Lost", ambiguous=True),
    QuotaExceeded("Used up", code="WARMUP_CAP_EXCEEDED"),
])  # fmt: skip
def test_other_errors_leave_the_next_request_its_chance(error):
    api = Api(lambda subjects: error if "0" in subjects else None)
    assert send(api, outgoing_messages(101)) == [type(error)] * 100 + [None]


def test_a_service_that_fails_now_and_then_is_not_left_alone():
    error = ServerError("Failed")
    api = Api(lambda subjects: error if {"0", "200"}.intersection(subjects) else None)
    kinds = send(api, outgoing_messages(301))
    assert kinds == [ServerError] * 100 + [None] * 100 + [ServerError] * 100 + [None]


def test_a_batch_in_doubt_is_never_halved():
    api = always(InvalidRequest("No", ambiguous=True))
    send(api, outgoing_messages(4))
    assert len(api.requests) == 1


def test_refused_results_are_errors_of_their_messages():
    class Refusing(Api):
        def _results(self, emails, key):
            return (SendResult("sent"), SendResult("blocked", reason="suppression_list"),
                    SendResult("failed", error="SES", code="PROVIDER_ERROR"))  # fmt: skip

    sent = outgoing_messages(3)
    assert send(Refusing(), sent) == [None, EmailRefused, EmailRefused]
    assert [one.error.retryable for one in sent[1:]] == [False, True]
    assert sent[1].result.status == "blocked"


def test_a_limit_of_one_email_stops_nothing():
    class Limited(Api):
        def _results(self, emails, key):
            results = super()._results(emails, key)
            return (*results[:-1], SendResult("failed", code="MONTHLY_LIMIT_EXCEEDED"))

    kinds = send(Limited(), outgoing_messages(250))
    assert [index for index, kind in enumerate(kinds) if kind] == [99, 199, 249]
    assert set(kinds) == {None, QuotaExceeded}


# What a refused email means ----------------------------------------------------------------------


@pytest.mark.parametrize(("code", "kind", "retryable"), [
    ("MONTHLY_LIMIT_EXCEEDED", QuotaExceeded, False),
    ("WARMUP_CAP_EXCEEDED", QuotaExceeded, False),
    ("RATE_LIMIT_MINUTE", RateLimited, True),
    ("rate_limit_exceeded", RateLimited, True),
    ("transient_failure", ServerError, True),
    ("TRANSIENT_FAILURE", ServerError, True),
    ("API_KEY_REVOKED", AuthenticationError, False),
    ("SCOPE_REQUIRED", ScopeError, False),
    ("DOMAIN_PAUSED", DomainError, False),
    ("domain_not_verified", DomainError, False),
    ("PROVIDER_ERROR", EmailRefused, True),
    ("INVALID_REQUEST", EmailRefused, False),
    ("ALL_RECIPIENTS_SUPPRESSED", EmailRefused, False),
    ("SOMETHING_NEW", EmailRefused, False),
])  # fmt: skip
def test_the_code_of_an_email_means_what_it_means_as_an_answer(code, kind, retryable):
    error = refusal_of(SendResult("failed", code=code, error="In words", attempts=2))
    assert type(error) is kind
    assert (error.code, error.retryable, error.ambiguous) == (code, retryable, False)
    assert (error.attempts, error.status, error.is_from_truncus) == (2, None, True)
    assert error.message == "Truncus failed the email: In words"


@pytest.mark.parametrize(("told", "kind", "code", "message"), [
    ({"reason": "domain_not_verified"}, DomainError, "domain_not_verified", ""),
    ({"reason": "transient_failure"}, ServerError, "transient_failure", ""),
    ({"error": "transient_failure", "reason": "Busy"}, ServerError, "transient_failure", ": Busy"),
    ({"reason": "suppression_list"}, EmailRefused, "suppression_list", ""),
    ({"reason": "invalid_address", "error": "No"}, EmailRefused, "invalid_address", ": No"),
    ({"reason": "In words"}, EmailRefused, None, ": In words"),
    ({"code": "OTHER", "reason": "transient_failure"}, EmailRefused, "OTHER", ANY),
    ({}, EmailRefused, None, ""),
])  # fmt: skip
def test_a_code_is_known_in_the_place_of_words(told, kind, code, message):
    error = refusal_of(SendResult("rejected", **told))
    assert (type(error), error.code) == (kind, code)
    assert message == ANY or error.message == f"Truncus rejected the email{message}"


def test_a_duplicate_of_a_refused_email_is_refused_whatever_its_code():
    result = SendResult("duplicate", email_status="failed", code="rate_limit_exceeded")
    assert type(refusal_of(result)) is EmailRefused


def test_the_failure_of_its_own_request_is_the_error_of_an_email():
    cause = RateLimited("Wait", retry_after=9, retryable=True)
    assert refusal_of(SendResult("failed", code="rate_limit_exceeded", cause=cause)) is cause


# What an accepted email says ---------------------------------------------------------------------


@pytest.mark.parametrize(("result", "warning"), [
    (SendResult("sent", message_id="m-1"), None),
    (SendResult("duplicate", message_id="m-1"), None),
    (SendResult("duplicate", original_global_message_id="g-1"), "same content: g-1"),
    (SendResult("sent", message_id="m-1", warnings=("ann@example.org",)), "m-1 with 1 warnings"),
])  # fmt: skip
def test_what_a_sender_may_not_expect_is_logged_as_a_warning(caplog, result, warning):
    with caplog.at_level(logging.WARNING, "truncus_django"):
        note_acceptance(result)
    assert (warning or "") in caplog.text
    assert bool(caplog.records) is (warning is not None)
    assert "ann@" not in caplog.text


# Sends in doubt -----------------------------------------------------------------------------------

LOST = AnswerLost("Lost", ambiguous=True)


def test_a_batch_in_doubt_is_made_up_again_whole_in_its_order_under_its_key():
    first = always(LOST)
    sent = outgoing_messages(3)
    send(first, sent)
    second = Api()
    assert send(second, again(sent)[::-1]) == [None] * 3
    assert second.requests == first.requests
    assert second.keys == first.keys


def test_batches_in_doubt_are_told_apart():
    first = always(LOST)
    sent = outgoing_messages(150)
    send(first, sent)
    second = Api()
    send(second, again(sent))
    assert (second.requests, second.keys) == (first.requests, first.keys)


def refusal(*, is_from_truncus):
    return InvalidRequest("No", status=413, is_from_truncus=is_from_truncus)


def test_doubt_ends_where_truncus_refuses_the_content():
    sent = again_after_a_lost_answer(2)
    api = always(refusal(is_from_truncus=True))
    assert send(api, sent) == [InvalidRequest] * 2
    assert [one.error.ambiguous for one in sent] == [False, False]
    assert api.requests == [["0", "1"], ["0"], ["1"]]


@pytest.mark.parametrize("error", [
    refusal(is_from_truncus=False), MessageError("No JSON"), DomainError("No"), RateLimited("Wait"),
])  # fmt: skip
def test_doubt_stays_whatever_else_a_repeated_batch_meets(error):
    sent = again_after_a_lost_answer(2)
    api = always(error)
    assert send(api, sent) == [type(error)] * 2
    assert all(one.error.ambiguous for one in sent)
    assert len(api.requests) == 1  # never in parts, whose keys would be new
    assert [one.ambiguous_send.idempotency_key for one in again(sent)] == api.keys * 2


def again_after_a_lost_answer(count):
    sent = outgoing_messages(count)
    send(always(LOST), sent)
    return again(sent)


def test_the_form_that_an_error_tells_is_remembered():
    wire_format = WireFormat(Capabilities(html_required=True), is_pinned=False)
    error = AnswerLost("Lost", ambiguous=True)
    error.wire_format = wire_format
    sent = outgoing_messages(2)
    send(always(error), sent)
    assert [one.ambiguous_send.wire_format for one in again(sent)] == [wire_format] * 2
    send(always(LOST), repeated := again(sent))
    assert [one.ambiguous_send.wire_format for one in again(repeated)] == [wire_format] * 2


def test_a_part_of_a_batch_in_doubt_is_not_sent():
    sent = outgoing_messages(3)
    send(always(LOST), sent)
    api = Api()
    assert send(api, again(sent)[:2]) == [OutcomeUnknown] * 2
    assert api.requests == []


def test_one_message_given_twice_does_not_make_up_for_a_missing_one():
    sent = outgoing_messages(2)
    send(always(LOST), sent)
    repeated = again(sent)[0]
    assert send(Api(), [repeated, *again(sent)[:1]]) == [OutcomeUnknown] * 2


def test_a_changed_message_is_a_new_one_and_leaves_the_others_in_doubt():
    sent = outgoing_messages(2)
    send(always(LOST), sent)
    sent[0].message.subject = "7"
    assert send(Api(), again(sent)) == [None, OutcomeUnknown]


def test_a_key_is_trusted_for_24_hours():
    sent = outgoing_messages(1)
    send(always(LOST), sent)
    assert send(Api(), again(sent), now=NOW + DAY - 1) == [None]
    api = Api()
    assert send(api, again(sent), now=NOW + DAY) == [OutcomeUnknown]
    assert api.requests == []


def test_doubt_counts_from_the_first_try():
    sent = outgoing_messages(1)
    send(always(LOST), sent)
    send(always(LOST), again(sent), now=NOW + DAY - 1)
    assert send(Api(), again(sent), now=NOW + DAY) == [OutcomeUnknown]


def test_doubt_about_a_new_request_does_not_count_from_one_that_surely_failed():
    sent = outgoing_messages(2)
    send(always(ServerError("Failed")), sent)
    half_a_day, api = NOW + DAY / 2, always(LOST)
    send(api, again(sent)[:1], now=half_a_day)
    repeated = Api()
    assert send(repeated, again(sent)[:1], now=half_a_day + DAY - 1) == [None]
    assert repeated.keys == api.keys


def test_a_message_with_its_own_key_is_sent_under_it_at_any_time():
    sent = outgoing_messages(1, key="mine")
    send(always(LOST), sent)
    assert again(sent)[0].is_ambiguous
    api = Api()
    send(api, again(sent), now=NOW + 9 * DAY)
    assert api.keys == ["mine"]


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(), RuntimeError("time limit")])
def test_whatever_ends_a_request_leaves_its_messages_remembered(end):
    sent = outgoing_messages(2)
    api = always(end)
    with pytest.raises(type(end)):
        send(api, sent)
    assert [one.ambiguous_send.idempotency_key for one in again(sent)] == api.keys * 2


def test_doubt_ends_when_it_is_forgotten():
    sent = outgoing_messages(1)
    send(always(LOST), sent)
    forget(sent[0])
    assert again(sent)[0].ambiguous_send is None


def test_what_is_remembered_does_not_show_its_key():
    sent = outgoing_messages(1)
    send(always(LOST), sent)
    note = again(sent)[0].ambiguous_send
    assert note.idempotency_key not in repr(note)


def test_a_batch_of_one_goes_to_the_send_endpoint():
    class SendOnly(Api):
        send_batch = None  # type: ignore[assignment]

    assert send(SendOnly(), outgoing_messages(1)) == [None]


def test_batches_are_values():
    assert Batch("k", []) == Batch("k", [])
