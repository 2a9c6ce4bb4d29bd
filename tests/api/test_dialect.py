"""The two dialects: what a refusal tells of an account, and how an email is adapted."""

import copy
import pickle
import traceback

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import API_KEY, HTML_REQUIRED, ONE_RECIPIENT
from truncus_django.api import TruncusClient
from truncus_django.api.capabilities import Capabilities, WireFormat
from truncus_django.api.dialect import adapt, text_as_html
from truncus_django.api.errors import (
    AnswerLost,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    OutcomeUnknown,
    RateLimited,
    ServerError,
    TruncusError,
)

TEXT = {"from": "shop@example.com", "to": "ann@example.org", "subject": "Hi", "text": "a < b"}
MANY = TEXT | {"to": ["ann@example.org", "bob@example.org"], "cc": ["eve@example.org"]}


def manual_refusal(text):
    return {"error": "invalid_payload", "message": text}


# What is sent at first follows the manual ---------------------------------------------------------


def test_plain_text_alone_is_sent_as_text_alone(client, truncus):
    client.send(TEXT)
    assert truncus.last.body == TEXT


def test_several_recipients_are_sent_as_an_array(client, truncus):
    client.send(MANY)
    assert truncus.last.body["to"] == ["ann@example.org", "bob@example.org"]


# What a first refusal tells -----------------------------------------------------------------------


@pytest.mark.parametrize("body", [
    HTML_REQUIRED,
    {"error": "html is required"},
    {"message": "Required field: html", "code": "INVALID_REQUEST"},
    manual_refusal("html required"),
])  # fmt: skip
def test_text_is_sent_again_with_html_beside_it_under_the_same_key(client, truncus, body):
    truncus.answers(400, body)
    result = client.send(TEXT)
    assert result.status == "sent"
    assert result.attempts == 2
    assert truncus.keys[0] == truncus.keys[1]
    assert truncus.last.body == TEXT | {"html": text_as_html("a < b")}


@pytest.mark.parametrize("body", [
    ONE_RECIPIENT,
    {"error": "'to' must be a string", "code": "INVALID_REQUEST"},
    manual_refusal("Expected a string for to"),
])  # fmt: skip
def test_other_recipients_move_to_the_front_of_cc(client, truncus, body):
    truncus.answers(400, body)
    client.send(MANY)
    assert truncus.last.body["to"] == "ann@example.org"
    assert truncus.last.body["cc"] == ["bob@example.org", "eve@example.org"]
    assert truncus.keys[0] == truncus.keys[1]


def test_one_email_may_be_refused_for_both(client, truncus):
    truncus.answers(400, HTML_REQUIRED)
    truncus.answers(400, ONE_RECIPIENT)
    assert client.send(MANY).attempts == 3
    assert truncus.last.body["to"] == "ann@example.org"
    assert "html" in truncus.last.body


def test_a_capability_holds_for_the_account_in_the_whole_process(client, truncus):
    truncus.answers(400, HTML_REQUIRED)
    client.send(TEXT)
    TruncusClient(API_KEY).send(TEXT)
    assert len(truncus.seen) == 3
    assert "html" in truncus.last.body


@pytest.mark.parametrize("other", [
    {"api_key": "tr_live_another"},
    {"api_key": API_KEY, "base_url": "https://eu.truncus.co"},
])  # fmt: skip
def test_capabilities_of_one_account_say_nothing_of_another(client, truncus, other):
    truncus.answers(400, HTML_REQUIRED)
    client.send(TEXT)
    TruncusClient(**other).send(TEXT)
    assert "html" not in truncus.last.body


def test_each_capability_is_logged_once_with_the_dialect_to_set(client, truncus, caplog):
    truncus.answers(400, HTML_REQUIRED)
    client.send(TEXT)
    client.send(TEXT)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "Set the dialect to 'sdk'" in record.message


@pytest.mark.parametrize("body", [
    {"error": "subject is required", "code": "INVALID_REQUEST"},
    {"error": "invalid_address", "message": "The address is malformed"},
    {"error": "html is too large", "code": "INVALID_REQUEST"},
])  # fmt: skip
def test_other_refusals_change_no_capability(client, truncus, body):
    truncus.answers(400, body)
    with pytest.raises(InvalidRequest):
        client.send(TEXT)
    assert len(truncus.seen) == 1


def test_other_refusals_change_nothing_afterwards_either(client, truncus):
    truncus.answers(400, HTML_REQUIRED)
    client.send(TEXT)
    truncus.always_answers(400, {"error": "subject is required", "code": "INVALID_REQUEST"})
    with pytest.raises(InvalidRequest):
        client.send(TEXT)
    assert len(truncus.seen) == 3


@pytest.mark.parametrize("email", [
    TEXT | {"html": "<p>Hi</p>"}, TEXT | {"template_id": "t"}, TEXT | {"text": ""},
])  # fmt: skip
def test_an_email_that_is_not_text_alone_shows_nothing_about_html(client, truncus, email):
    truncus.answers(400, HTML_REQUIRED)
    with pytest.raises(InvalidRequest):
        client.send(email)
    assert len(truncus.seen) == 1


def test_an_api_that_refuses_both_wire_formats_is_asked_twice_and_no_more(client, truncus):
    truncus.always_answers(400, HTML_REQUIRED)
    with pytest.raises(InvalidRequest):
        client.send(TEXT)
    assert len(truncus.seen) == 2


def test_only_http_400_changes_a_capability(client, truncus):
    truncus.answers(422, HTML_REQUIRED)
    with pytest.raises(InvalidRequest):
        client.send(TEXT)
    assert len(truncus.seen) == 1


def test_a_missing_recipient_is_refused_and_changes_no_capability(client, truncus):
    truncus.always_answers(400, ONE_RECIPIENT)
    with pytest.raises(InvalidRequest):
        client.send(TEXT | {"to": []})
    assert len(truncus.seen) == 1


# Pinned -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "sent"), [
    ("manual", MANY),
    ("sdk", MANY | {"html": text_as_html("a < b"), "to": "ann@example.org",
                    "cc": ["bob@example.org", "eve@example.org"]}),
])  # fmt: skip
def test_a_pinned_dialect_is_spoken_at_once_and_nothing_is_tried_twice(truncus, dialect, sent):
    truncus.answers(400, HTML_REQUIRED)
    client = TruncusClient(API_KEY, dialect=dialect)
    with pytest.raises(InvalidRequest):
        client.send(MANY)
    assert [seen.body for seen in truncus.seen] == [sent]


def test_a_dialect_that_does_not_exist_is_refused():
    with pytest.raises(ConfigurationError, match="'auto', 'manual' or 'sdk'"):
        TruncusClient(API_KEY, dialect="latin")


# Batches ------------------------------------------------------------------------------------------


def failed(index, refusal):
    return {"index": index, "status": "failed", **refusal}


def sent(index):
    return {"index": index, "status": "sent", "message_id": f"m-{index}"}


HTML = TEXT | {"html": "<p>Hi</p>"}


def test_a_batch_refused_as_a_whole_is_sent_again_in_the_other_wire_format(client, truncus):
    truncus.answers(400, HTML_REQUIRED)
    batch = client.send_batch([HTML, TEXT], idempotency_key="k")
    assert batch.attempts == 2
    assert truncus.keys == ["k", "k"]
    assert truncus.last.emails == [HTML, TEXT | {"html": text_as_html("a < b")}]


def test_only_the_emails_that_a_batch_refused_are_sent_again_under_a_derived_key(client, truncus):
    truncus.answers(200, {"results": [sent(0), failed(1, HTML_REQUIRED), sent(2)]})
    batch = client.send_batch([HTML, TEXT, HTML], idempotency_key="k")
    assert truncus.keys == ["k", "k:again"]
    assert len(truncus.last.emails) == 1
    assert [result.message_id for result in batch.results] == ["m-0", "id-2-0", "m-2"]
    assert batch.attempts == 2


@pytest.mark.parametrize("refusal", [HTML_REQUIRED, ONE_RECIPIENT])
def test_the_second_wire_format_of_a_batch_leaves_nothing_to_refuse(client, truncus, refusal):
    truncus.answers(200, {"results": [failed(0, refusal)]})
    client.send_batch([MANY], idempotency_key="k")
    [email] = truncus.last.emails
    assert (email["to"], email["html"]) == ("ann@example.org", text_as_html("a < b"))


def test_a_batch_is_sent_again_once(client, truncus):
    truncus.always_answers(200, {"results": [failed(0, HTML_REQUIRED)]})
    assert client.send_batch([TEXT], idempotency_key="k").count("failed") == 1
    assert truncus.keys == ["k", "k:again"]


def test_a_repeated_batch_answered_with_its_first_refusals_repeats_both_requests(client, truncus):
    truncus.answers(200, {"results": [sent(0), failed(1, HTML_REQUIRED)]})
    client.send_batch([HTML, TEXT], idempotency_key="k")
    truncus.answers(200, {"results": [sent(0), failed(1, HTML_REQUIRED)]})
    batch = client.send_batch([HTML, TEXT], idempotency_key="k")
    assert truncus.keys == ["k", "k:again"] * 2
    assert batch.count("sent") == 2


def test_emails_that_failed_for_another_reason_are_not_sent_again(client, truncus):
    truncus.answers(400, HTML_REQUIRED)
    client.send(TEXT)
    truncus.answers(200, {"results": [failed(0, {"error": "SES", "code": "PROVIDER_ERROR"})]})
    client.send_batch([TEXT], idempotency_key="k")
    assert len(truncus.seen) == 3


def test_accepted_emails_of_a_batch_stay_told_where_the_others_meet_a_limit(client, truncus):
    truncus.answers(200, {"results": [sent(0), failed(1, HTML_REQUIRED)]})
    truncus.answers(429, {"error": "rate_limit_exceeded"}, {"Retry-After": "999"})
    batch = client.send_batch([HTML, TEXT], idempotency_key="k")
    assert [result.status for result in batch.results] == ["sent", "failed"]
    assert batch.results[0].cause is None
    assert isinstance(batch.results[1].cause, RateLimited)
    assert batch.results[1].cause.retry_after == 999


@pytest.mark.parametrize(("answer", "kind"), [
    ((401, {"error": "Revoked", "code": "API_KEY_REVOKED"}), AuthenticationError),
    ((502, {"status": "failed", "error": "SES", "code": "PROVIDER_ERROR"}), ServerError),
    (requests.exceptions.ConnectTimeout(), ConnectionFailed),
])  # fmt: skip
def test_what_kept_the_other_wire_format_from_being_sent_is_the_cause(truncus, answer, kind):
    truncus.answers(200, {"results": [sent(0), failed(1, HTML_REQUIRED)]})
    if isinstance(answer, Exception):
        truncus.breaks(answer)
    else:
        truncus.answers(*answer)
    batch = TruncusClient(API_KEY, max_retries=0).send_batch([HTML, TEXT], idempotency_key="k")
    cause = batch.results[1].cause
    assert type(cause) is kind
    assert not cause.ambiguous
    frames = [frame for frame, _ in traceback.walk_tb(cause.__traceback__)]
    assert frames[0].f_code.co_name == "_batch_or_error"
    assert [dict(frame.f_locals) for frame in frames] == [{}] * len(frames)  # no emails
    assert type(pickle.loads(pickle.dumps(batch.results[1])).cause) is kind
    assert "cause" not in repr(batch.results[1])


def test_a_limit_says_nothing_of_a_request_that_was_made_before(client, truncus):
    """The answer that was lost may have been that to the emails in their second form."""
    wire_format = client.wire_format
    truncus.answers(200, {"results": [sent(0), failed(1, HTML_REQUIRED)]})
    truncus.answers(429, {"error": "rate_limit_exceeded"}, {"Retry-After": "999"})
    with pytest.raises(RateLimited) as caught:
        client.send_batch([HTML, TEXT], idempotency_key="k", wire_format=wire_format)
    assert caught.value.ambiguous
    assert caught.value.wire_format == wire_format


def test_a_refusal_of_the_content_says_it_all_the_same(client, truncus):
    truncus.answers(200, {"results": [sent(0), failed(1, HTML_REQUIRED)]})
    truncus.answers(400, {"error": "invalid_payload", "message": "No"})
    batch = client.send_batch([HTML, TEXT], idempotency_key="k", wire_format=client.wire_format)
    assert isinstance(batch.results[1].cause, InvalidRequest)


# The form of what is ambiguous -------------------------------------------------------------------

AS_THE_MANUAL = WireFormat(Capabilities(), is_pinned=False)
WITH_HTML = WireFormat(Capabilities(html_required=True), is_pinned=False)


def lost(client, truncus, emails=(HTML, TEXT), **options):
    """The error of a batch whose last answer is lost."""
    truncus.loses_the_answer()
    with pytest.raises(TruncusError) as caught:
        client.send_batch(emails, idempotency_key="k", **options)
    assert caught.value.ambiguous
    return caught.value


@pytest.fixture
def hasty():
    return TruncusClient(API_KEY, max_retries=0)


def test_a_lost_answer_tells_the_wire_format_that_was_sent(hasty, truncus):
    assert lost(hasty, truncus).wire_format == AS_THE_MANUAL


def test_a_lost_answer_after_a_refusal_tells_the_new_wire_format(hasty, truncus):
    truncus.answers(400, HTML_REQUIRED)
    error = lost(hasty, truncus)
    assert error.wire_format == WITH_HTML
    assert (
        pickle.loads(pickle.dumps(error)).wire_format == copy.copy(error).wire_format == WITH_HTML
    )


def test_a_lost_answer_to_one_email_tells_its_wire_format_too(hasty, truncus):
    truncus.answers(400, HTML_REQUIRED)
    truncus.loses_the_answer()
    with pytest.raises(AnswerLost) as caught:
        hasty.send(TEXT)
    assert caught.value.wire_format == WITH_HTML


def test_a_repeated_request_that_is_lost_again_keeps_the_first_wire_format(hasty, truncus):
    first = lost(hasty, truncus)
    truncus.answers(400, HTML_REQUIRED)
    hasty.send(TEXT)
    assert lost(hasty, truncus, wire_format=first.wire_format).wire_format == AS_THE_MANUAL


def test_a_repeated_request_that_is_refused_first_has_the_new_wire_format_only(hasty, truncus):
    first = lost(hasty, truncus)
    truncus.answers(400, HTML_REQUIRED)
    assert lost(hasty, truncus, wire_format=first.wire_format).wire_format == WITH_HTML


def test_the_first_wire_format_is_told_where_the_second_request_of_a_batch_is_lost(hasty, truncus):
    truncus.answers(200, {"results": [sent(0), failed(1, HTML_REQUIRED)]})
    assert lost(hasty, truncus).wire_format == AS_THE_MANUAL


def test_an_error_that_is_not_ambiguous_tells_no_wire_format(hasty, truncus):
    truncus.answers(429, {"error": "rate_limit_exceeded"})
    with pytest.raises(RateLimited) as caught:
        hasty.send_batch([HTML, TEXT], idempotency_key="k")
    assert caught.value.wire_format is None


def test_a_batch_lost_in_its_new_wire_format_is_believed_when_truncus_knows_its_key(hasty, truncus):
    truncus.answers(400, HTML_REQUIRED)
    error = lost(hasty, truncus)
    known = {"status": "duplicate", "email_status": "sent"}
    truncus.answers(200, known)
    batch = hasty.send_batch([HTML, TEXT], idempotency_key="k", wire_format=error.wire_format)
    assert batch.is_replay

    truncus.answers(200, known)
    with pytest.raises(OutcomeUnknown):  # as it is with the form from before
        hasty.send_batch([HTML, TEXT], idempotency_key="k", wire_format=AS_THE_MANUAL)


def test_a_batch_is_ambiguous_where_the_answer_to_the_others_is_lost(client, truncus):
    truncus.answers(200, {"results": [sent(0), failed(1, HTML_REQUIRED)]})
    truncus.always_answers(500, {"error": "transient_failure"})
    with pytest.raises(ServerError) as caught:
        client.send_batch([HTML, TEXT], idempotency_key="k")
    assert caught.value.ambiguous


def test_a_batch_that_meets_a_limit_at_once_is_raised(client, truncus):
    truncus.answers(429, {"error": "rate_limit_exceeded"}, {"Retry-After": "999"})
    with pytest.raises(RateLimited):
        client.send_batch([HTML, TEXT], idempotency_key="k")


# Adapting -----------------------------------------------------------------------------------------


def test_an_email_that_fits_is_left_as_it_is():
    assert adapt(HTML, Capabilities(html_required=True, single_recipient=True)) is HTML


def test_an_email_is_not_changed_in_place():
    before = dict(MANY)
    adapt(MANY, Capabilities(html_required=True, single_recipient=True))
    assert before == MANY


def test_one_recipient_in_a_list_needs_no_cc():
    adapted = adapt(TEXT | {"to": ["ann@example.org"]}, Capabilities(single_recipient=True))
    assert adapted == TEXT


def test_a_tuple_of_recipients_is_a_list_too():
    adapted = adapt(TEXT | {"to": ("a@example.org", "b@example.org")}, Capabilities(False, True))
    assert (adapted["to"], adapted["cc"]) == ("a@example.org", ["b@example.org"])


# Text as HTML -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "shown"), [
    ("a < b & c", "a &lt; b &amp; c"),
    ('say "hi"', 'say "hi"'),
    ("one\ntwo\r\nthree\rfour", "one<br>\ntwo<br>\nthree<br>\nfour"),
    ("  indented", "&nbsp; indented"),
    ("a   b", "a&nbsp;&nbsp; b"),
    ("see https://example.com.", 'see <a href="https://example.com">https://example.com</a>.'),
    ("(https://example.com/a_(b))",
     '(<a href="https://example.com/a_(b)">https://example.com/a_(b)</a>)'),
    ("https://example.com/?a=1&b=2",
     '<a href="https://example.com/?a=1&amp;b=2">https://example.com/?a=1&amp;b=2</a>'),
    ("javascript:alert(1)", "javascript:alert(1)"),
    ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
])  # fmt: skip
def test_text_is_shown_as_it_is(text, shown):
    assert text_as_html(text) == f"<!DOCTYPE html><html><body>{shown}</body></html>"


@given(st.text(alphabet=st.sampled_from("ab <>&\"'\n\thttps://x.()")))
def test_no_text_can_break_out_of_its_html(text):
    body = text_as_html(text).removeprefix("<!DOCTYPE html><html><body>")
    body = body.removesuffix("</body></html>")
    for known in ("<br>\n", "</a>"):
        body = body.replace(known, "")
    assert body.count("<") == body.count("<a href=")


def test_fields_that_only_the_manual_knows_are_sent_with_one_warning(truncus, caplog):
    client = TruncusClient(API_KEY, dialect="sdk")
    for _ in range(2):
        client.send(TEXT | {"reply_to": "help@example.com", "headers": {"X-A": "1"}})

    assert truncus.last.body["reply_to"] == "help@example.com"
    assert caplog.text.count("does not know reply_to and headers") == 1
