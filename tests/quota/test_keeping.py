"""What answers tell of quotas is kept: seldom, for every process, and in nobody's way."""

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from django.core import mail
from django.core.mail import EmailMessage, send_mail
from django.core.signals import request_finished
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from tests.fallback import InterruptedBackend, SilentBackend, use_fallback
from tests.waiting import PATIENCE_S
from truncus_django.api.errors import OutcomeUnknown, QuotaExceeded, ServerError, refusal
from truncus_django.api.results import MonthlyQuota, SendResult
from truncus_django.backend import TruncusBackend
from truncus_django.conf import get_settings
from truncus_django.log.sync import SyncJob
from truncus_django.models import AccountQuota, Email
from truncus_django.quota import keeping
from truncus_django.quota.figures import Told
from truncus_django.quota.keeping import (
    forget_noted,
    note_answer,
    told_by_error,
    told_by_results,
)
from truncus_django.quota.overview import quotas
from truncus_django.signals import quota_threshold
from truncus_django.testing import run_emulator, use_emulator

pytestmark = pytest.mark.django_db(transaction=True)


def send(number: int = 0, sender: str = "shop@example.com") -> None:
    send_mail(f"Order {number}", "It is on its way.", sender, ["ann@example.org"])


def writes(captured: CaptureQueriesContext) -> int:
    return sum(
        "accountquota" in query["sql"] and query["sql"].startswith("UPDATE")
        for query in captured.captured_queries
    )


def of_plan(sent: int, limit: int = 100) -> Told:
    return Told(MonthlyQuota(limit, sent, limit - sent))


# What is kept ---------------------------------------------------------------------------------


def test_the_first_answer_is_kept(emulator):
    send()

    [quota] = quotas()
    assert (quota.limit, quota.used, quota.left) == (10, 1, 9)
    assert quota.share == 0.1
    assert not quota.is_stale
    assert "default" in quota.mailers or quota.mailers == ("",)


def test_a_list_is_kept_as_its_last_answer_says(emulator):
    messages = [EmailMessage(str(n), "Hello", to=["ann@example.org"]) for n in range(5)]
    TruncusBackend().send_messages(messages)

    assert quotas()[0].used == 5


def test_answers_without_headers_write_nothing(emulator):
    emulator.reset(monthly_limit=0)
    send()

    assert not AccountQuota.objects.exists()


@pytest.mark.parametrize("headers", [("3000", "-1", "5"), ("0", "0", "0"), ("10", "1", "999")])
def test_absurd_headers_write_nothing(truncus, headers):
    names = ("X-Monthly-Limit", "X-Monthly-Sent", "X-Monthly-Remaining")
    truncus.answers(
        200, {"status": "sent", "message_id": "1"}, dict(zip(names, headers, strict=True))
    )
    send()

    assert Email.objects.count() == 1
    assert not AccountQuota.objects.exists()


def test_without_a_record_nothing_is_kept(settings, emulator):
    settings.TRUNCUS = {**settings.TRUNCUS, "RECORD": False}
    with CaptureQueriesContext(connection) as captured:
        send()

    assert len(captured) == 0


def test_each_mailer_has_the_quota_of_its_account(settings, emulator):
    TruncusBackend().send_messages([EmailMessage("1", "Hello", to=["ann@example.org"])])
    other = TruncusBackend(api_key="tr_test_other")
    other.send_messages([EmailMessage(str(n), "Hi", to=["ann@example.org"]) for n in range(3)])

    assert sorted(AccountQuota.objects.values_list("sent", flat=True)) == [1, 3]
    assert len(quotas()) == 1  # no mailer of the project has the other key


# What it costs --------------------------------------------------------------------------------


def test_one_write_a_minute(emulator, monkeypatch):
    emulator.reset(monthly_limit=1000)
    send()
    with CaptureQueriesContext(connection) as captured:
        for number in range(20):
            send(number)
    assert writes(captured) == 0
    assert len(captured) == 20  # the records alone

    later = time.monotonic() + keeping.WRITE_EVERY_S
    monkeypatch.setattr(keeping.time, "monotonic", lambda: later)
    with CaptureQueriesContext(connection) as captured:
        for number in range(20):
            send(number)
    assert writes(captured) == 1
    assert len(captured) <= 23  # one to read the row, and a server is asked for the time
    assert quotas()[0].used == 22


def test_a_threshold_a_plan_and_a_refusal_are_written_at_once():
    settings = get_settings()
    for told in (of_plan(10), of_plan(79), of_plan(80), of_plan(81, limit=200)):
        note_answer("account", told, settings)
    row = AccountQuota.objects.get()
    assert (row.limit, row.sent, row.version) == (200, 81, 3)

    note_answer("account", Told(is_used_up=True), settings)
    note_answer("account", Told(is_used_up=True), settings)
    row.refresh_from_db()
    assert (row.remaining, row.version) == (0, 4)


def capped(domain: str) -> Told:
    return Told(capped_domains=frozenset({domain}))


@pytest.mark.parametrize(
    "alternating",
    [
        [capped("a.example"), capped("b.example")],
        [of_plan(100), Told(is_used_up=True)],
        [of_plan(10), capped("a.example"), of_plan(11)],
    ],
)
def test_answers_that_alternate_are_written_once(alternating):
    settings = get_settings()
    for told in alternating:
        note_answer("account", told, settings)
    with CaptureQueriesContext(connection) as captured:
        for told in alternating:
            note_answer("account", told, settings)
    assert len(captured) == 0


def test_a_cap_that_is_met_again_is_written_within_a_minute(monkeypatch):
    settings, at = get_settings(), time.monotonic()
    for later in (0.0, 50.0):
        monkeypatch.setattr(keeping.time, "monotonic", lambda later=later: at + later)
        note_answer("account", capped("a.example"), settings)
        note_answer("account", of_plan(10 + int(later) * 80 // 50), settings)
    AccountQuota.objects.update(capped={})
    monkeypatch.setattr(keeping.time, "monotonic", lambda: at + keeping.WRITE_EVERY_S)
    note_answer("account", capped("a.example"), settings)
    assert list(AccountQuota.objects.get().capped) == ["a.example"]


# Whose transaction ----------------------------------------------------------------------------


def test_the_row_is_written_after_the_callers_transaction(emulator):
    with transaction.atomic():
        send()
        assert not AccountQuota.objects.exists()

    assert quotas()[0].used == 1


def test_what_was_told_in_a_transaction_that_is_rolled_back_is_written_by_the_next(emulator):
    with transaction.atomic():
        send()
        transaction.set_rollback(True)
    assert not AccountQuota.objects.exists()

    request_finished.send(sender=None)

    assert quotas()[0].used == 1


def test_a_refusal_inside_a_transaction_is_not_lost(emulator, told):
    emulator.reset(dialect="sdk", monthly_limit=1)
    send()
    forget_noted()
    with pytest.raises(QuotaExceeded), transaction.atomic():
        send(1)
    request_finished.send(sender=None)

    assert AccountQuota.objects.get().remaining == 0


def test_a_coroutine_is_written_by_another_thread(shared_database, emulator):
    async def main() -> None:
        send()

    asyncio.run(main())

    assert quotas()[0].used == 1


def test_a_table_that_is_missing_costs_no_email(emulator, caplog):
    with connection.schema_editor() as editor:
        editor.delete_model(AccountQuota)
    try:
        send()
        send(1)
    finally:
        with connection.schema_editor() as editor:
            editor.create_model(AccountQuota)

    assert Email.objects.filter(state="delivered").count() == 2
    assert [record.message for record in caplog.records if "quota" in record.message] == [
        caplog.records[-1].message
    ]


# Refusals -------------------------------------------------------------------------------------


def _told_to_wait(seconds, *, by_proxy=False):
    body = None if by_proxy else {"error": "rate_limit_exceeded", "message": "Wait"}
    return refusal(429, body, {"Retry-After": str(seconds)}, now=0.0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (QuotaExceeded("No", code="MONTHLY_LIMIT_EXCEEDED"), Told(is_used_up=True)),
        (
            QuotaExceeded("No", code="WARMUP_CAP_EXCEEDED"),
            Told(capped_domains=frozenset({"example.com"})),
        ),
        (_told_to_wait(60), Told()),
        (_told_to_wait(5 * 86400), Told(is_used_up=True)),
        (_told_to_wait(7200), Told(capped_domains=frozenset({"example.com"}))),
        (_told_to_wait(7200, by_proxy=True), Told()),
        (_told_to_wait(5 * 86400, by_proxy=True), Told()),
        (ServerError("Down", retry_after=7200), Told()),
    ],
)
def test_what_a_refusal_tells(error, expected):
    assert told_by_error(error, ["Shop <shop@Example.com>"]) == expected


def test_a_quota_that_ends_in_the_middle_of_a_batch():
    quota = MonthlyQuota(10, 10, 0)
    results = [
        SendResult("sent", quota=quota),
        SendResult("failed", code="WARMUP_CAP_EXCEEDED", quota=quota),
        SendResult("failed", code="MONTHLY_LIMIT_EXCEEDED", quota=quota),
    ]

    told = told_by_results(results, ["a@a.example", "b@b.example", "c@c.example"])

    assert told == Told(quota, is_used_up=True, capped_domains=frozenset({"b.example"}))


@pytest.mark.parametrize("dialect", ["sdk", "manual"])
def test_a_used_up_quota_is_kept_where_the_fallback_mailer_sends(dialect, settings, told):
    use_fallback(settings)
    # On the last day of a month the manual's answer could be about a domain's cap of the day.
    mid_month = datetime.now(UTC).replace(day=10).timestamp()
    options = {"clock": lambda: mid_month, "dialect": dialect, "monthly_limit": 1}
    with run_emulator(**options) as emulator, use_emulator(emulator):
        send()
        forget_noted()
        AccountQuota.objects.all().delete()
        send(1)

    assert [message.subject for message in mail.outbox] == ["Order 1"]
    assert AccountQuota.objects.get().remaining == 0
    assert [one["share"] for one in told][-1] == 1.0


@pytest.mark.parametrize(
    ("mailer", "error"),
    [(SilentBackend, OutcomeUnknown), (InterruptedBackend, KeyboardInterrupt)],
)
def test_a_used_up_quota_is_kept_where_the_fallback_mailer_fails(mailer, error, settings, emulator):
    use_fallback(settings, f"{mailer.__module__}.{mailer.__qualname__}")
    mail.outbox = [EmailMessage()]
    emulator.reset(dialect="sdk", monthly_limit=1)
    send()
    forget_noted()
    AccountQuota.objects.all().delete()
    with pytest.raises(error):
        send(1)

    assert AccountQuota.objects.get().remaining == 0


def test_a_warm_up_cap_is_inferred_and_ends_with_the_day(emulator):
    emulator.reset(dialect="sdk", daily_limit=1)
    send()
    with pytest.raises(OSError, match="Daily limit"):
        send(1)

    [quota] = quotas()
    assert quota.capped_domains == ("example.com",)
    assert quota.capped_until is not None
    assert quota.capped_until.timestamp() % 86400 == 0
    assert not quota.is_used_up


def test_a_plan_that_is_told_by_its_refusal_alone():
    note_answer("account", Told(is_used_up=True), get_settings())

    row = AccountQuota.objects.get()
    assert (row.limit, row.remaining, row.told_percent) == (None, 0, 100)


# Sync -----------------------------------------------------------------------------------------


def test_the_answers_to_sync_are_kept(emulator):
    emulator.reset(monthly_limit=100)
    send()
    AccountQuota.objects.all().delete()
    forget_noted()

    SyncJob().ask_about(Email.objects.all())

    assert quotas()[0].used == 1


# The signal -----------------------------------------------------------------------------------


def test_each_threshold_is_told_once(emulator, told):
    emulator.reset(monthly_limit=20)
    for number in range(20):
        send(number)
    for number in range(3):
        with pytest.raises(OSError, match="Monthly limit"):
            send(number)
    forget_noted()  # as another process
    with pytest.raises(OSError, match="Monthly limit"):
        send()

    assert [facts["share"] for facts in told] == [0.8, 0.95, 1.0]
    assert [facts["quota"].used for facts in told] == [16, 19, 20]
    assert all(facts["mailers"] == quotas()[0].mailers for facts in told)
    assert all(facts["sender"] is AccountQuota for facts in told)


def test_a_leap_over_several_tells_the_highest(told):
    note_answer("account", of_plan(99), get_settings())
    assert [facts["share"] for facts in told] == [0.95]


def test_a_new_month_tells_again(told):
    note_answer("account", of_plan(85), get_settings())
    AccountQuota.objects.update(month="2020-01-01")
    forget_noted()
    note_answer("account", of_plan(85), get_settings())

    assert [facts["share"] for facts in told] == [0.8, 0.8]


def test_a_receiver_may_send_and_may_fail(emulator, caplog):
    received = []

    def receive(share: float, **facts: Any) -> None:
        received.append(share)
        send(99)
        raise ValueError

    quota_threshold.connect(receive)
    try:
        for number in range(8):
            send(number)
    finally:
        quota_threshold.disconnect(receive)

    assert received == [0.8]
    assert len(emulator.emails) == 9


def test_threads_that_cross_a_threshold_together_tell_it_once(shared_database, in_threads, told):
    note_answer("account", of_plan(10), get_settings())
    start = Barrier(4)

    def cross(sent: int) -> None:
        start.wait(PATIENCE_S)
        keeping._write("account", of_plan(sent), using=shared_database)

    in_threads(*[partial(cross, 80 + number) for number in range(4)])

    assert [facts["share"] for facts in told] == [0.8]
