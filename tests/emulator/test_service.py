"""Sending, batches, reading back, cancelling, sandbox, suppression: over HTTP, both dialects."""

import pytest

from .conftest import an_email

FUTURE = "2099-10-01T09:00:00Z"


def test_manual_answers_with_the_terminal_state(manual):
    assert set(manual.send().json()) == {"status", "message_id"}
    assert manual.send().json()["status"] == "delivered"


def test_sdk_answers_sent_with_all_ids(sdk):
    answer = sdk.send().json()
    assert answer["status"] == "sent"
    assert answer["provider"] == "ses"
    assert all(answer[name] for name in ("message_id", "global_message_id", "provider_message_id"))


@pytest.mark.parametrize(
    "reason", ["mailbox_full", "mailbox_does_not_exist", "no_mx_record", "connection_timeout"]
)
def test_manual_bounce_tells_the_reason_that_was_asked_for(manual, reason):
    answer = manual.send(to=f"bounce+{reason}@example.com").json()
    assert (answer["status"], answer["reason"]) == ("bounced", reason)


def test_manual_takes_several_recipients(manual):
    manual.send(to=["ada@example.com", "Bob <bob@example.com>"])
    assert manual.emulator.emails[0].to == ("ada@example.com", "bob@example.com")


def test_manual_takes_text_alone(manual):
    assert manual.send(html=None, text="Thank you").json()["status"] == "delivered"


def test_everything_that_was_sent_can_be_looked_at(either):
    either.send(key="order-1", tenant_id="acme", metadata={"order": "1"})
    [email] = either.emulator.emails
    assert email.payload == an_email(tenant_id="acme", metadata={"order": "1"})
    assert (email.idempotency_key, email.tenant_id) == ("order-1", "acme")
    assert email.batch_index is None
    assert either.emulator.accepted == 1


def test_an_api_key_is_kept_as_a_fingerprint_only(either):
    either.send()
    api_key = either.session.headers["Authorization"].split()[1]
    seen = repr(either.emulator.emails) + repr(either.emulator.requests)
    assert api_key not in seen
    assert either.emulator.emails[0].api_key.startswith("key_")


def test_sandbox_stores_but_delivers_nothing(either):
    answer = either.send(sandbox=True).json()
    if either.emulator.options.dialect == "sdk":
        assert (answer["status"], answer["sandbox"]) == ("sent", True)
    else:
        assert answer["status"] == "sandbox"
    assert answer["provider_message_id"].startswith("sandbox-")
    [email] = either.emulator.emails
    assert email.sandbox
    assert [event.type for event in email.events] == ["queued", "sent"]
    assert either.email(email.id)["sandbox"] is True


def test_scheduled_email_is_sent_when_its_time_comes(start, clock):
    client = start(dialect="sdk", clock=clock)
    answer = client.send(send_at="2027-01-16T08:00:00Z").json()
    assert (answer["status"], answer["send_at"]) == ("scheduled", "2027-01-16T08:00:00.000Z")
    assert client.email(answer["message_id"])["status"] == "scheduled"
    clock.jump(24 * 3600 + 1)
    assert client.email(answer["message_id"])["status"] == "delivered"


def test_scheduled_email_can_be_cancelled_once(either):
    message_id = either.send(send_at=FUTURE).json()["message_id"]
    path = f"/api/v1/emails/{message_id}"
    assert either.call("DELETE", path).json() == {"id": message_id, "status": "cancelled"}
    assert either.call("DELETE", path).status_code == 409
    assert either.email(message_id)["status"] == "cancelled"


def test_a_sent_email_cannot_be_cancelled(either):
    message_id = either.send().json()["message_id"]
    assert either.call("DELETE", f"/api/v1/emails/{message_id}").status_code == 409


def test_unknown_email_is_not_found(either):
    assert either.call("GET", "/api/v1/emails/unknown").status_code == 404
    assert either.call("DELETE", "/api/v1/emails/unknown").status_code == 404
    assert either.call("GET", "/api/v1/events?message_id=unknown").status_code == 404


def test_deferred_email_is_queued_and_delivered_later(either):
    answer = either.send(to="deferred@example.com").json()
    assert answer["status"] == "queued"
    assert answer["retry_scheduled"] is answer["queued_for_retry"] is True
    assert answer["retry_at"]
    either.emulator.wait_for(lambda e: e.emails[0].status == "delivered")
    assert either.email(answer["message_id"])["retry_count"] == 1


def test_suppression_list_belongs_to_its_tenant(either):
    either.emulator.suppress("Ada@example.com", tenant="acme")
    assert either.send(tenant_id="acme").json()["status"] in {"blocked", "rejected"}
    assert either.send(tenant_id="other").json()["status"] in {"sent", "delivered"}
    assert len(either.emulator.refused_emails) == 1
    assert either.emulator.accepted == 1


def test_manual_rejects_suppressed_recipients(manual):
    answer = manual.send(to="suppressed@example.com").json()
    assert (answer["status"], answer["reason"]) == ("rejected", "suppression_list")


def test_sdk_tells_all_suppressed_from_the_primary_one(sdk):
    everybody = sdk.send(to="suppressed@example.com").json()
    assert everybody["reason"] == "All recipients are suppressed"
    assert everybody["suppressed_addresses"] == ["suppressed@example.com"]
    primary = sdk.send(to="suppressed@example.com", cc=["ada@example.com"]).json()
    assert primary["reason"] == "Primary recipient is suppressed"
    assert primary["code"] == everybody["code"] == "ALL_RECIPIENTS_SUPPRESSED"


def test_a_suppressed_copy_is_left_out_with_a_warning(sdk):
    answer = sdk.send(cc=["suppressed@example.com"]).json()
    assert answer["status"] == "sent"
    assert "suppressed@example.com" in answer["warnings"][0]


def test_bounced_address_is_suppressed_when_asked_for(start):
    client = start(dialect="manual", suppress_after_bounce=True)
    assert client.send(to="bounce@example.com").json()["status"] == "bounced"
    assert client.send(to="bounce@example.com").json()["status"] == "rejected"


def test_batch_has_one_result_for_each_email(sdk):
    answer = sdk.batch(
        an_email(),
        an_email(to="suppressed@example.com"),
        an_email(subject=None),
        an_email(to="deferred@example.com"),
    ).json()
    counts = [answer[name] for name in ("total", "sent", "queued", "blocked", "failed")]
    assert counts == [4, 1, 1, 1, 1]
    assert [result["index"] for result in answer["results"]] == [0, 1, 2, 3]
    assert answer["results"][2] == {
        "index": 2,
        "status": "failed",
        "error": "subject is required",
        "code": "INVALID_REQUEST",
    }
    assert [email.batch_index for email in sdk.emulator.emails] == [0, 3]
    assert {email.batch_size for email in sdk.emulator.emails} == {4}


def test_manual_batch_has_the_manuals_states(manual):
    answer = manual.batch(
        an_email(), an_email(to="bounce@example.com"), an_email(to="suppressed@example.com")
    ).json()
    statuses = [result["status"] for result in answer["results"]]
    assert statuses == ["delivered", "bounced", "rejected"]
    assert (answer["sent"], answer["blocked"]) == (2, 1)


def test_paused_domain_blocks_its_item_only(start):
    client = start(dialect="sdk", domains={"paused.example": "paused"})
    answer = client.batch(an_email(), an_email(from_="a@paused.example")).json()
    assert answer["results"][1] == {
        "index": 1,
        "status": "blocked",
        "reason": "Domain paused",
        "code": "DOMAIN_PAUSED",
    }


def test_one_bad_item_can_refuse_the_whole_batch(start):
    client = start(dialect="sdk", batch_refusal="whole")
    answer = client.batch(an_email(), an_email(to="nobody"))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("emails[1]: ")
    assert client.emulator.accepted == 0


@pytest.mark.parametrize("count", [0, 101])
def test_batch_of_a_wrong_size_is_refused(either, count):
    assert either.batch(*[an_email()] * count).status_code == 400


def test_manual_reads_back_counts_of_opens_and_clicks(manual):
    message_id = manual.send(to="click@example.com").json()["message_id"]
    manual.emulator.wait_for(lambda e: e.emails[0].events[-1].type == "clicked")
    email = manual.email(message_id)
    assert (email["open_count"], email["click_count"]) == (1, 1)
    assert email["opened_at"]
    assert "events" not in email


def test_sdk_reads_back_the_timeline(sdk):
    message_id = sdk.send(to="click@example.com").json()["message_id"]
    sdk.emulator.wait_for(lambda e: e.emails[0].events[-1].type == "clicked")
    email = sdk.email(message_id)
    types = ["queued", "sent", "delivered", "opened", "clicked"]
    assert [event["type"] for event in email["events"]] == types
    assert [event["event"] for event in email["lifecycle"]] == types
    assert email["latency"]["total_ms"] == 10


def test_untracked_email_is_neither_opened_nor_clicked(sdk):
    sdk.send(to="click@example.com", track_opens=False, track_clicks=False)
    sdk.send(to="click@example.com")
    sdk.emulator.wait_for(lambda e: e.emails[1].events[-1].type == "clicked")
    assert sdk.emulator.emails[0].events[-1].type == "delivered"


def test_complaint_follows_delivery(sdk):
    message_id = sdk.send(to="complaint@example.com").json()["message_id"]
    sdk.emulator.wait_for(lambda e: e.emails[0].status == "complained")
    assert sdk.email(message_id)["intelligence"]["failure_category"] == "complaint"


def test_events_are_listed_and_kept_90_days(start, clock):
    client = start(clock=clock)
    message_id = client.send().json()["message_id"]
    path = f"/api/v1/events?message_id={message_id}"
    events = client.call("GET", path).json()["events"]
    assert [event["status"] for event in events] == ["queued", "sent", "delivered"]
    assert all(set(e) == {"event_id", "message_id", "status", "timestamp"} for e in events)
    clock.jump(91 * 24 * 3600)
    assert client.call("GET", path).json()["events"] == []


def test_template_is_rendered_with_escaped_variables(start):
    client = start(dialect="sdk", templates={"hello": "<p>Hello {{ name }}{{other}}</p>"})
    client.send(html=None, template_id="hello", variables={"name": "<Ada>"})
    message_id = client.emulator.emails[0].id
    frame = client.call("GET", f"/mail/{message_id}/html").text
    assert "<p>Hello &lt;Ada&gt;</p>" in frame
    refused = client.send(html=None, template_id="other")
    assert (refused.status_code, refused.json()["error"]) == (400, "Template not found")


def test_equal_content_within_the_window_is_not_sent_again(start, clock):
    client = start(dialect="sdk", dedup_window_s=60, clock=clock)
    first = client.send().json()
    second = client.send().json()
    assert second == {
        "status": "duplicate",
        "message": "Duplicate email detected within dedup window",
        "original_global_message_id": first["global_message_id"],
    }
    assert client.send(subject="Another").json()["status"] == "sent"
    clock.jump(61)
    assert client.send().json()["status"] == "sent"


def test_validate_rates_without_sending(either):
    path = "/api/v1/emails/validate"
    good = either.call("POST", path, json=an_email()).json()
    assert (good["valid"], good["recommendation"]) == (True, "safe_to_send")
    suppressed = either.call("POST", path, json=an_email(to="suppressed@example.com")).json()
    assert suppressed["checks"]["to_address_suppressed"] is True
    malformed = either.call("POST", path, json=an_email(to="nobody")).json()
    assert (malformed["valid"], malformed["recommendation"]) == (False, "do_not_send")
    assert either.emulator.accepted == 0


def test_only_the_newest_bodies_are_kept_but_everything_counts(start):
    client = start(keep=2)
    for number in range(3):
        client.send(subject=f"Order {number}")
    oldest, *kept = client.emulator.emails
    assert oldest.payload is None
    assert [email.payload["subject"] for email in kept] == ["Order 1", "Order 2"]
    assert client.emulator.accepted == 3
    assert client.email(oldest.id)["subject"] == "Order 0"


def test_reset_forgets_everything_but_the_connection(either):
    either.send(key="order-1")
    either.emulator.suppress("ada@example.com")
    either.emulator.faults.next("error_500")
    either.emulator.reset(requests_per_minute=1)
    assert either.emulator.emails == []
    assert either.emulator.connections == 0
    assert either.send(key="order-1").status_code == 200
    assert either.send().status_code == 429
    either.emulator.reset()
    assert either.emulator.options.requests_per_minute == 0


def test_emulator_comes_back_on_the_same_port_with_its_state(manual):
    url = manual.emulator.url
    manual.send(key="order-1")
    manual.emulator.stop()
    manual.emulator.start()
    assert manual.emulator.url == url
    assert manual.send(key="order-1").status_code == 200
    assert manual.emulator.accepted == 1
