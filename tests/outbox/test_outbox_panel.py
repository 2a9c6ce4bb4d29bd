"""The outbox in the admin: what it shows, to whom, and what may be done there."""

import re
from collections.abc import Iterable
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.admin import pages
from tests.admin.pages import LOG, confirm_unasked, messages_of, page_of, run, shown
from tests.outbox.conftest import NO_LIMITS, put_all, reload
from truncus_django.admin.actions import ACTIONS
from truncus_django.admin.outbox_panel import facts, outbox_entries
from truncus_django.message import TruncusMessage
from truncus_django.models import Email, OutboxAccount, OutboxBatch, OutboxEntry
from truncus_django.outbox import operations
from truncus_django.states import State

pytestmark = pytest.mark.django_db

RESUME = f"{LOG}outbox/resume/"


def confirm(client: Client, action: str, *emails: Email, **data: Any) -> str:
    """Run an action of the list and answer its question; return what the user is told."""
    return messages_of(client, pages.confirm(client, action, *emails, **data))


def age(emails: Iterable[Email], length: timedelta) -> None:
    """Let emails have waited for so long."""
    moment = timezone.now() - length
    ids = [email.pk for email in emails]
    Email.objects.filter(pk__in=ids).update(created_at=moment)
    OutboxEntry.objects.filter(pk__in=ids).update(created_at=moment)


def _let_be_tried(*, due_in_s: float, **fields: Any) -> None:
    """Put all that waits into one request, whose next try or lease is due in so many seconds."""
    due_at = timezone.now() + timedelta(seconds=due_in_s)
    batch = OutboxBatch.objects.create(idempotency_key="k", priority=5, due_at=due_at, **fields)
    OutboxEntry.objects.update(batch=batch, is_waiting=False)
    Email.objects.update(state=State.SENDING)


@pytest.fixture
def paused(emulator: Any, put: Any, dispatcher: Any) -> OutboxAccount:
    """An account whose key was revoked, and an email that waits for it."""
    emulator.reset(revoked_keys=["tr_test_emulator"])
    put(1)
    dispatcher.drain()
    emulator.reset(**NO_LIMITS)
    return OutboxAccount.objects.get()


class TestPanel:
    def test_it_tells_what_waits_and_for_how_long(self, admin_client, put):
        emails = put(3)
        age(emails[:1], timedelta(minutes=4))

        for path in ("", "dashboard/"):
            page = admin_client.get(LOG + path).text
            assert "truncus-outbox" in page
            assert f'<a href="{LOG}?state__exact=pending">3</a>' in page
            assert "4\xa0minutes" in page

    def test_it_tells_of_the_next_try_and_the_last_error(self, admin_client, put, dispatcher):
        put(1)
        OutboxEntry.objects.update(payload="{")
        put(1)
        OutboxEntry.objects.filter(payload__startswith='{"').update(is_waiting=False)
        batch = OutboxBatch.objects.create(
            idempotency_key="k",
            priority=5,
            due_at=timezone.now() + timedelta(minutes=3),
            error="The service is ill <b>",
        )

        page = admin_client.get(LOG).text

        assert "The service is ill &lt;b&gt;" in page
        assert timezone.localtime(batch.due_at).isoformat(timespec="seconds") in page

    def test_it_is_not_there_without_an_outbox(self, admin_client, settings):
        settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}
        Email.objects.create(state=State.DELIVERED)

        assert "truncus-outbox" not in admin_client.get(LOG).text

    def test_it_is_there_for_what_is_left_in_one(self, admin_client, settings, put):
        put(1)
        settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct"}

        assert "truncus-outbox" in admin_client.get(LOG).text

    def test_a_paused_account_is_shown_with_its_reason(self, admin_client, paused):
        page = admin_client.get(LOG).text

        assert re.search(
            r"The account of <b>\w+</b> is paused until <time[^>]*>[^<]*</time>: ", page
        )
        assert "revoked" in page
        assert f"{RESUME}?account={paused.account}" in page

    def test_what_can_be_tried_again_is_what_the_link_shows(self, admin_client, failed):
        Email.objects.create(state=State.FAILED, subject="Sent directly")
        page = admin_client.get(LOG).text

        [(link, number)] = re.findall(r'<a href="([^"]*state__exact=failed[^"]*)">(\d+)</a>', page)
        listed = admin_client.get(unescape(link))
        assert int(number) == len(shown(listed)) == len(failed)
        assert "Content: <b>stored in the outbox</b>" in listed.text

    def test_that_no_worker_runs_is_shown(self, admin_client, put):
        put(1)
        assert "No worker seems to run" not in admin_client.get(LOG).text
        age(Email.objects.all(), timedelta(hours=1))
        assert "No worker seems to run" in admin_client.get(LOG).text

    def test_queries_are_as_many_for_many(self, admin_client, put):
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                assert admin_client.get(LOG).status_code == 200
            return len(captured)

        put(2)
        admin_client.get(LOG)
        few = queries()
        put(60)

        assert queries() <= few + 1  # the list has a second page, and so a count
        assert few <= 20

    def test_no_payload_is_read_for_the_list_or_a_page(self, admin_client, put):
        [email] = put(1)
        with CaptureQueriesContext(connection) as captured:
            admin_client.get(LOG)
            page = admin_client.get(page_of(email)).text

        sql = " ".join(query["sql"] for query in captured).replace("`", '"')
        assert "truncus_django_outboxentry" in sql
        assert '"truncus_django_outboxentry"."payload"' not in sql
        assert "is on its way" not in page


class TestOneEmail:
    def test_the_list_tells_for_how_long_it_waits_and_when_it_is_tried(
        self, admin_client, message, dispatcher, emulator
    ):
        put_all([message(0, priority="high")])
        emulator.faults.next("provider_502")
        dispatcher.drain()

        page = admin_client.get(LOG).text

        assert "waiting: less than a minute" in page
        assert "next attempt" in page
        assert "<code>PROVIDER_ERROR</code>" in page
        assert "priority high" in page

    def test_what_is_tried_again_by_hand_waits_since_then(self, admin_client, failed):
        age(failed, timedelta(weeks=3))
        operations.retry([failed[0].pk])

        in_list, page = admin_client.get(LOG).text, admin_client.get(page_of(failed[0])).text

        assert 'title="Since it was put into the outbox">waiting: less than a minute<' in in_list
        assert "for less than a minute" in page

    def test_less_than_a_minute_is_told_in_a_language_that_marks_its_direction(
        self, admin_client, put, settings
    ):
        settings.LANGUAGE_CODE = "ckb"
        put(2)
        _let_be_tried(due_in_s=30)

        page = admin_client.get(LOG).text

        assert page.count("waiting: less than a minute") == 2
        assert page.count("next attempt now") == 2

    def test_its_place_in_the_outbox_takes_few_queries(self, put):
        [email] = put(1, priority="low")
        entry = outbox_entries([email])[email.pk]

        with CaptureQueriesContext(connection) as captured:
            facts(email, entry)

        for_the_clock = connection.vendor in {"postgresql", "mysql"}
        assert len(captured) == 2 + for_the_clock

    def test_its_page_tells_where_it_stands(self, admin_client, message, dispatcher, emulator):
        [email] = put_all([message(0, priority="low", expires_at=timedelta(hours=2))])
        page = admin_client.get(page_of(email)).text
        for text in ("Waits for its first request", "low", "Expires", "attachments included"):
            assert text in page

        emulator.faults.next("provider_502")
        dispatcher.drain()

        page = admin_client.get(page_of(email)).text
        assert "Was not accepted. Next attempt at" in page
        assert "PROVIDER_ERROR" in page

    @pytest.mark.parametrize(
        ("lease_s", "in_list", "on_page"),
        [
            (60, "being sent", "A worker is sending it"),
            (-60, "next attempt now", "May have been accepted. The same request will be repeated"),
        ],
    )
    def test_what_a_dead_worker_left_is_not_told_as_being_sent(
        self, admin_client, put, lease_s, in_list, on_page
    ):
        [email] = put(1)
        _let_be_tried(due_in_s=lease_s, lease=uuid4(), is_ambiguous=True)

        assert f'<span class="truncus-more">{in_list}</span>' in admin_client.get(LOG).text
        assert on_page in admin_client.get(page_of(email)).text

    def test_whether_it_is_being_sent_goes_by_the_clock_of_the_database(
        self, admin_client, put, travel
    ):
        [email] = put(1)
        _let_be_tried(due_in_s=60, lease=uuid4())
        travel(120)

        assert '<span class="truncus-more">next attempt now</span>' in admin_client.get(LOG).text
        assert "A worker is sending it" not in admin_client.get(page_of(email)).text

    def test_its_page_says_that_its_account_is_paused(self, admin_client, paused):
        page = admin_client.get(page_of(Email.objects.get())).text
        assert "paused until" in page
        assert "revoked" in page

    def test_a_text_that_waits_is_shown_only_where_texts_are_stored(
        self, admin_client, put, settings
    ):
        [email] = put(1)
        page = admin_client.get(page_of(email)).text
        assert "may hold a reset link that still works" in page
        assert "Your order 0" not in page
        html = reverse("admin:truncus_django_email_html", args=[email.pk])
        assert admin_client.get(html).status_code == 404

        settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
        [email] = put(1)
        assert "Your order 0 is on its way." in admin_client.get(page_of(email)).text
        html = reverse("admin:truncus_django_email_html", args=[email.pk])
        assert "sandbox" in admin_client.get(html)["Content-Security-Policy"]

    def test_only_what_makes_sense_is_offered(self, admin_client, failed, unknown, put):
        def offered(email: Email) -> set[str]:
            page = admin_client.get(page_of(email))
            always = {"sync_now", "resend", "export_csv", "forget"}
            return {b.name for b in page.context["buttons"] if not b.why_not} - always

        [waits] = put(1)
        delivered = Email.objects.create(state=State.DELIVERED, to=["a@example.org"])
        direct = Email.objects.create(state=State.UNKNOWN, to=["a@example.org"])

        assert offered(waits) == {"cancel"}
        assert offered(failed[0]) == {"retry"}
        decisions = {"decide_sent", "decide_send", "decide_not_sent"}
        assert offered(unknown[0]) == decisions
        assert offered(direct) == {"decide_sent", "decide_not_sent"}
        assert offered(delivered) == set()

    def test_what_a_worker_has_cannot_be_cancelled_and_says_so(self, admin_client, put):
        [email] = put(1)
        batch = OutboxBatch.objects.create(
            idempotency_key="k", priority=5, due_at=timezone.now(), is_ambiguous=True
        )
        OutboxEntry.objects.update(is_waiting=False, batch=batch)
        Email.objects.update(state=State.SENDING)

        assert "the answer was lost" in admin_client.get(page_of(email)).text
        question = run(admin_client, "cancel", email)
        assert "the answer was lost" in question.text
        assert 'name="confirmed"' not in question.text
        done = confirm_unasked(admin_client, "cancel", email)
        assert "the answer was lost" in messages_of(admin_client, done)
        assert reload(email).state == State.SENDING


class TestActions:
    def test_retry(self, admin_client, failed, dispatcher):
        told = confirm(admin_client, "retry", *failed)

        assert "<b>2 emails</b>: Waiting to be sent again." in told
        assert {reload(email).state for email in failed} == {State.PENDING}
        assert [entry.change_message for entry in LogEntry.objects.all()] == [
            "Waiting to be sent again."
        ] * 2
        assert dispatcher.drain().accepted == 2

    def test_one_is_told_by_its_name(self, admin_client, failed):
        assert "<b>Order 0</b>: Waiting to be sent again." in confirm(
            admin_client, "retry", failed[0]
        )

    def test_cancel_what_waits_beside_what_is_scheduled(
        self, admin_client, put, settings, emulator, dispatcher
    ):
        scheduled = put(1, send_at=timezone.now() + timedelta(days=1))
        dispatcher.drain()
        assert reload(scheduled[0]).state == State.SCHEDULED
        waiting = put(2)
        delivered = Email.objects.create(state=State.DELIVERED, subject="Gone out")

        told = confirm(admin_client, "cancel", *scheduled, *waiting, delivered)

        assert "<b>2 emails</b>: Cancelled." in told
        assert "Gone out" not in told  # the question has said why not
        assert {reload(email).state for email in [*scheduled, *waiting]} == {State.CANCELLED}
        assert LogEntry.objects.filter(change_message="Cancelled.").count() == 3
        assert dispatcher.drain().requests == 0

    @pytest.mark.parametrize(
        ("action", "state", "sends"),
        [
            ("decide_sent", State.SENT, 0),
            ("decide_send", State.PENDING, 2),
            ("decide_not_sent", State.FAILED, 0),
        ],
    )
    def test_decide(self, admin_client, unknown, emulator, dispatcher, action, state, sends):
        confirm(admin_client, action, *unknown)

        assert {reload(email).state for email in unknown} == {state}
        assert LogEntry.objects.count() == 2
        assert dispatcher.drain().accepted == sends
        assert len(emulator.emails) == sends

    def test_all_that_a_filter_shows(self, admin_client, put):
        emails = put(3)
        Email.objects.create(state=State.DELIVERED)
        told = confirm(admin_client, "cancel", emails[0], select_across="1")

        assert "<b>3 emails</b>: Cancelled." in told

    def test_queries_are_as_many_for_many(self, admin_client, put):
        def queries(emails: list[Email]) -> int:
            with CaptureQueriesContext(connection) as captured:
                confirm_unasked(admin_client, "cancel", *emails)
            return len(captured)

        queries(put(1))
        assert queries(put(2)) == queries(put(50))

    @pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
    def test_an_action_needs_its_own_permission(self, may, action, failed, unknown, put, emulator):
        scheduled = Email.objects.create(state=State.SCHEDULED, message_id="m", text_body="x")
        emails = [*failed, *unknown, *put(1), scheduled]
        before = [email.state for email in emails]
        clerk = may("view_email", *({each.permission for each in ACTIONS} - {action.permission}))

        confirm_unasked(clerk, action.name, *emails, click=str(uuid4()))

        assert [reload(email).state for email in emails] == before
        assert not LogEntry.objects.exists()
        assert emulator.requests == []
        assert not any(
            f'value="{action.name}"' in clerk.get(page_of(email)).text for email in emails
        )


class TestDeleting:
    def test_what_waits_can_be_deleted(self, admin_client, put):
        [email] = put(1)
        admin_client.post(f"{LOG}{email.pk}/delete/", {"post": "yes"})
        assert not Email.objects.exists()
        assert not OutboxEntry.objects.exists()

    def test_a_part_of_a_request_cannot(self, admin_client, put, dispatcher, emulator):
        emails = put(2)
        emulator.faults.next("reset_after")
        dispatcher.step()

        one = admin_client.post(f"{LOG}{emails[0].pk}/delete/", {"post": "yes"})
        several = run(admin_client, "delete_selected", *emails, post="yes")

        assert "a part of a request" in one.text
        assert "a part of a request" in several.text
        assert OutboxEntry.objects.count() == 2


class TestGoingOn:
    def test_it_asks_and_then_goes_on(self, admin_client, paused, dispatcher):
        question = admin_client.get(RESUME, {"account": paused.account})
        assert "revoked" in question.text
        assert OutboxAccount.objects.get().paused_until is not None

        told = messages_of(admin_client, admin_client.post(RESUME, {"account": paused.account}))

        assert "Sending resumed." in told
        assert LogEntry.objects.get().change_message == "Sending resumed before the pause ended."
        assert dispatcher.drain().accepted == 1

    @pytest.mark.parametrize("account", ["nobody", "", "\0"])
    def test_an_account_that_is_not_paused_is_told(self, admin_client, account, put):
        told = messages_of(admin_client, admin_client.post(RESUME, {"account": account}))
        assert "is no longer paused" in told

    def test_one_that_goes_on_while_the_user_confirms_is_told(
        self, admin_client, paused, monkeypatch
    ):
        monkeypatch.setattr(operations, "resume", lambda account: False)
        told = messages_of(admin_client, admin_client.post(RESUME, {"account": paused.account}))
        assert "is no longer paused" in told
        assert not LogEntry.objects.exists()

    def test_it_takes_the_permission(self, may, paused):
        clerk = may("view_email", "cancel_email")

        assert clerk.post(RESUME, {"account": paused.account}).status_code == 403
        assert "Resume sending" not in clerk.get(LOG).text
        assert OutboxAccount.objects.get().paused_until is not None


class TestSendingAgain:
    @pytest.mark.parametrize("delivery", ["outbox", "direct"])
    def test_what_was_stored_is_sent_whole(
        self, admin_client, emulator, dispatcher, settings, delivery
    ):
        settings.TRUNCUS = {**settings.TRUNCUS, "STORE_BODIES": True}
        message = TruncusMessage(
            "Your invoice",
            "Attached.",
            "Shop <shop@example.com>",
            ["ann@example.org", "ben@example.org"],
            cc=["copy@example.org"],
            html="<p>Attached.</p>",
            reply_to=["billing@example.com"],
            headers={"X-Order": "42"},
            attachments=[("invoice.txt", b"42 EUR", "text/plain")],
            metadata={"order": "42"},
        )
        [email] = put_all([message])
        dispatcher.drain()
        [first] = emulator.emails
        settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": delivery}

        confirm(admin_client, "resend", email)

        again = Email.objects.get(resend_of=email)
        assert again.state == (State.PENDING if delivery == "outbox" else State.DELIVERED)
        dispatcher.drain()
        second = emulator.emails[-1]
        assert len(emulator.emails) == 2
        assert second.payload == first.payload
        assert again.attachment_count == 1

    def test_what_failed_can_be_sent_as_a_new_one(self, admin_client, failed, dispatcher, emulator):
        told = confirm(admin_client, "resend", failed[0])

        assert "Queued to be sent." in told
        assert "Sent again" not in told
        dispatcher.drain()
        assert [email.subject for email in emulator.emails] == ["Order 0"]

    @pytest.mark.parametrize("action", ["resend", "retry"])
    def test_that_no_worker_runs_is_told(self, admin_client, failed, put, action):
        warning = "No worker seems to run: nothing is sent from the outbox."
        assert warning not in confirm(admin_client, action, failed[0])
        age(put(1), timedelta(hours=1))
        OutboxAccount.objects.update(recent_requests=[])

        assert warning in confirm(admin_client, action, failed[1])

    def test_what_may_have_been_sent_is_decided_first(self, admin_client, unknown, emulator):
        done = confirm_unasked(admin_client, "resend", unknown[0], click=str(uuid4()))
        assert "Mark it as sent or as not sent first." in messages_of(admin_client, done)
        assert not Email.objects.filter(resend_of=unknown[0]).exists()

    def test_nothing_is_said_to_be_lost_that_was_stored(self, admin_client, failed):
        Email.objects.update(attachment_count=2)
        question = run(admin_client, "resend", failed[0])
        assert "its attachments" not in question.text
