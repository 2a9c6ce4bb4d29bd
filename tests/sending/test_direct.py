"""What becomes of messages that are sent directly."""

from collections.abc import Sequence

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
    SendCancelled,
    ServerError,
    TLSError,
    TruncusError,
)
from truncus_django.api.results import BatchResult, SendResult
from truncus_django.sending.ambiguous import forget, recall
from truncus_django.sending.batching import make_batches
from truncus_django.sending.direct import send_batches
from truncus_django.sending.outgoing import OutgoingMessage, SendOutcome
from truncus_django.sending.payload import Payload

NOW = 1_767_225_600.0
DAY = 24 * 60 * 60


def outgoing(subject="0", *, sender="shop@example.com", key=None, sandbox=False, size=100):
    email = EmailFields({"from": sender, "to": "ann@example.org", "subject": subject, "text": "T"})
    payload = Payload(email=email, idempotency_key=key, is_sandbox=sandbox, size=size)
    return OutgoingMessage(int(subject), EmailMessage(subject), payload=payload)


def again(outgoing_messages: Sequence[OutgoingMessage]) -> list[OutgoingMessage]:
    """The same messages, given to a second send."""
    return [
        one._replace(ambiguous_send=recall(one, Api(), is_sandbox=False))
        for one in outgoing_messages
    ]


class Api:
    """Stands in for the client: accepts all, but for emails that ``refuse`` has an error for."""

    account = "account"
    base_url = "https://truncus.co"
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


def outcomes(api: Api, messages: Sequence[OutgoingMessage], *, now=NOW) -> list[SendOutcome]:
    """Send and return what became of each message."""
    found = {}
    for sent in send_batches(api, make_batches(messages, now=now), now=now):
        found.update({outgoing.message: outcome for outgoing, outcome in sent})
    return [found[outgoing.message] for outgoing in messages]


def send(api: Api, messages: Sequence[OutgoingMessage], *, now=NOW) -> list[type | None]:
    """Send and return the kind of each message's error."""
    found = outcomes(api, messages, now=now)
    return [type(outcome.error) if outcome.error else None for outcome in found]


def outgoing_messages(count, **options):
    return [outgoing(str(number), **options) for number in range(count)]


# Requests -----------------------------------------------------------------------------------------


def test_every_message_gets_its_result_key_and_place():
    api = Api()
    found = outcomes(api, outgoing_messages(3))
    assert [outcome.result.message_id for outcome in found] == ["0", "1", "2"]
    assert {outcome.idempotency_key for outcome in found} == set(api.keys)
    assert [(outcome.batch_index, outcome.batch_size) for outcome in found] == [
        (0, 3), (1, 3), (2, 3),
    ]  # fmt: skip


def test_what_cannot_be_sent_is_told_without_a_request():
    refused = outgoing("0")._replace(payload=None, error=MessageError("Broken"))
    cancelled = outgoing("1")._replace(payload=None, error=SendCancelled())
    api = Api()
    assert outcomes(api, [refused, cancelled]) == [
        SendOutcome(error=refused.error),
        SendOutcome(is_cancelled=True),
    ]
    assert api.requests == []


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


def test_an_ambiguous_batch_is_never_halved():
    api = always(InvalidRequest("No", ambiguous=True))
    send(api, outgoing_messages(4))
    assert len(api.requests) == 1


def test_refused_results_are_errors_of_their_messages():
    class Refusing(Api):
        def _results(self, emails, key):
            return (SendResult("sent"), SendResult("blocked", reason="suppression_list"),
                    SendResult("failed", error="SES", code="PROVIDER_ERROR"))  # fmt: skip

    first, *others = outcomes(Refusing(), outgoing_messages(3))
    assert first.error is None
    assert [type(outcome.error) for outcome in others] == [EmailRefused, EmailRefused]
    assert [outcome.error.retryable for outcome in others] == [False, True]
    assert others[0].result.status == "blocked"


def test_a_limit_of_one_email_stops_nothing():
    class Limited(Api):
        def _results(self, emails, key):
            results = super()._results(emails, key)
            return (*results[:-1], SendResult("failed", code="MONTHLY_LIMIT_EXCEEDED"))

    kinds = send(Limited(), outgoing_messages(250))
    assert [index for index, kind in enumerate(kinds) if kind] == [99, 199, 249]
    assert set(kinds) == {None, QuotaExceeded}


# Ambiguous sends ----------------------------------------------------------------------------------

LOST = AnswerLost("Lost", ambiguous=True)


def test_an_ambiguous_batch_is_made_up_again_whole_in_its_order_under_its_key():
    first = always(LOST)
    sent = outgoing_messages(3)
    send(first, sent)
    second = Api()
    assert send(second, again(sent)[::-1]) == [None] * 3
    assert second.requests == first.requests
    assert second.keys == first.keys


def test_ambiguous_batches_are_told_apart():
    first = always(LOST)
    sent = outgoing_messages(150)
    send(first, sent)
    second = Api()
    send(second, again(sent))
    assert (second.requests, second.keys) == (first.requests, first.keys)


def refusal(*, is_from_truncus):
    return InvalidRequest("No", status=413, is_from_truncus=is_from_truncus)


def test_a_send_is_ambiguous_no_more_where_truncus_refuses_the_content():
    api = always(refusal(is_from_truncus=True))
    found = outcomes(api, again_after_a_lost_answer(2))
    assert [type(outcome.error) for outcome in found] == [InvalidRequest] * 2
    assert [outcome.error.ambiguous for outcome in found] == [False, False]
    assert api.requests == [["0", "1"], ["0"], ["1"]]


@pytest.mark.parametrize("error", [
    refusal(is_from_truncus=False), MessageError("No JSON"), DomainError("No"), RateLimited("Wait"),
])  # fmt: skip
def test_a_send_stays_ambiguous_whatever_else_a_repeated_batch_meets(error):
    sent = again_after_a_lost_answer(2)
    api = always(error)
    found = outcomes(api, sent)
    assert [type(outcome.error) for outcome in found] == [type(error)] * 2
    assert all(outcome.error.ambiguous for outcome in found)
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


def test_a_part_of_an_ambiguous_batch_is_not_sent():
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


def test_a_changed_message_is_a_new_one_and_leaves_the_others_ambiguous():
    sent = outgoing_messages(2)
    send(always(LOST), sent)
    sent[0].message.subject = "7"
    assert send(Api(), again(sent)) == [None, OutcomeUnknown]


def test_a_key_is_trusted_for_24_hours():
    in_time, sent = outgoing_messages(1), outgoing_messages(1)
    send(always(LOST), in_time)
    send(always(LOST), sent)
    assert send(Api(), again(in_time), now=NOW + DAY - 1) == [None]
    api = Api()
    assert send(api, again(sent), now=NOW + DAY) == [OutcomeUnknown]
    assert api.requests == []


def test_the_24_hours_count_from_the_first_try():
    sent = outgoing_messages(1)
    send(always(LOST), sent)
    send(always(LOST), again(sent), now=NOW + DAY - 1)
    assert send(Api(), again(sent), now=NOW + DAY) == [OutcomeUnknown]


def test_the_24_hours_of_an_ambiguous_request_do_not_count_from_one_that_surely_failed():
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
    sends = send_batches(api, make_batches(sent, now=NOW), now=NOW)
    assert [type(outcome.error) for _, outcome in next(sends)] == [OutcomeUnknown] * 2
    with pytest.raises(type(end)):
        next(sends)
    assert [one.ambiguous_send.idempotency_key for one in again(sent)] == api.keys * 2


def test_a_break_just_after_an_answer_leaves_the_messages_remembered(monkeypatch):
    """Sent again, they go under the same key: Truncus has accepted them."""

    def time_limit(result):
        raise KeyboardInterrupt

    monkeypatch.setattr("truncus_django.sending.direct.refusal_of", time_limit)

    class Refusing(Api):
        def _results(self, emails, key):
            super()._results(emails, key)
            return (SendResult("sent"), SendResult("blocked"))

    sent, api = outgoing_messages(2), Refusing()
    sends = send_batches(api, make_batches(sent, now=NOW), now=NOW)
    assert [type(outcome.error) for _, outcome in next(sends)] == [OutcomeUnknown] * 2
    with pytest.raises(KeyboardInterrupt):
        next(sends)
    assert [one.ambiguous_send.idempotency_key for one in again(sent)] == api.keys * 2


def test_a_forgotten_send_is_ambiguous_no_more():
    sent = outgoing_messages(1)
    send(always(LOST), sent)
    forget(sent[0], again(sent)[0].ambiguous_send.idempotency_key)
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
