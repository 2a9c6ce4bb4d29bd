"""Tenants with accounts of their own in the outbox: rows hold a name, and workers ask again."""

from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import uuid4

import django
import pytest
from django.contrib import messages
from django.core import serializers
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import OutputWrapper
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.admin.pages import LOG, page_of
from tests.outbox.conftest import NO_LIMITS, keys_of, put_all, reload
from tests.outbox.processes import other_database, shared_database, site  # noqa: F401  fixtures
from truncus_django.admin import actions
from truncus_django.admin.resend import resend
from truncus_django.bulk import send_bulk
from truncus_django.doctor import examine_outbox, examine_quota
from truncus_django.emulator.account import fingerprint
from truncus_django.log.sync import SyncJob
from truncus_django.management.commands.truncus_worker import _Output
from truncus_django.models import (
    AccountQuota,
    Email,
    OutboxAccount,
    OutboxBatch,
    OutboxEntry,
    SuppressedAddress,
)
from truncus_django.outbox import operations
from truncus_django.outbox.claim import Claim, claim
from truncus_django.outbox.dispatcher import Dispatcher
from truncus_django.outbox.health import health
from truncus_django.states import State

pytestmark = pytest.mark.django_db(transaction=True)

OWN = "tr_test_outbox"


@pytest.fixture
def keys() -> dict[str, str]:
    """By tenant, its key: what the project's table holds at the moment."""
    return {"acme": "tr_test_acme_key", "zenith": "tr_test_zenith_key"}


@pytest.fixture
def extra() -> dict[str, Any]:
    """What else the accounts of tenants are given."""
    return {}


@pytest.fixture
def asked() -> list[str]:
    """The tenants that were asked for."""
    return []


@pytest.fixture(autouse=True)
def accounts(settings, emulator, keys, extra, asked):
    """``ACCOUNTS`` looks tenants up in ``keys``; ``shared`` has no account of its own."""

    def account_for(tenant: str, mailer: str) -> dict[str, Any] | None:
        asked.append(tenant)
        return None if tenant == "shared" else {"api_key": keys[tenant], **extra}

    settings.TRUNCUS = {
        **settings.TRUNCUS,
        "API_KEY": OWN,
        "BASE_URL": emulator.url,
        "ACCOUNTS": account_for,
    }


@pytest.fixture
def put_for(message: Callable[..., Any]) -> Callable[..., list[Email]]:
    """Return a function that puts one email of each tenant into the outbox, in this order."""

    def put_for(*tenants: str | None, **options: Any) -> list[Email]:
        return put_all(
            [message(number, tenant_id=tenant, **options) for number, tenant in enumerate(tenants)]
        )

    return put_for


def used(emulator, keys) -> list[str]:
    """Return whose key each email came by."""
    names = {fingerprint(key): name for name, key in {**keys, "own": OWN}.items()}
    return [names[email.api_key] for email in emulator.emails]


def states_of(emails) -> list[str]:
    return [reload(email).state for email in emails]


# Rows and workers ---------------------------------------------------------------------------------


def test_a_row_holds_the_name_and_never_a_key(put_for):
    put_for("acme", "shared", None)
    entries = OutboxEntry.objects.order_by("created_at")
    assert list(entries.values_list("tenant", flat=True)) == ["acme", "", ""]
    rows = serializers.serialize("json", [*entries, *Email.objects.all()])
    assert "acme_key" not in rows


def test_each_request_goes_by_the_account_of_its_tenant(
    emulator, keys, put_for, dispatcher, states
):
    put_for("acme", "zenith", "shared", None, "acme")
    dispatcher.drain()
    assert sorted(used(emulator, keys)) == ["acme", "acme", "own", "own", "zenith"]
    assert len(emulator.requests) == 3
    assert set(states()) == {"delivered"}


def test_a_worker_asks_again(emulator, keys, put_for, dispatcher, asked):
    put_for("acme")
    keys["acme"] = "tr_test_replaced"
    asked.clear()
    dispatcher.drain()
    assert "acme" in asked
    assert [email.api_key for email in emulator.emails] == [fingerprint("tr_test_replaced")]


def test_no_row_of_what_was_sent_holds_a_key(put_for, dispatcher, keys):
    put_for("acme", "zenith")
    dispatcher.step()
    models = (Email, OutboxEntry, OutboxBatch, OutboxAccount, AccountQuota)
    rows = serializers.serialize("json", [row for model in models for row in model.objects.all()])
    assert not [key for key in keys.values() if key in rows]
    named = OutboxAccount.objects.exclude(tenant="").values_list("tenant", flat=True)
    assert list(named) == ["acme"]


def test_a_bulk_goes_by_the_accounts_of_its_tenants(emulator, keys, message, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct", "RECORD": True}
    tenants = ["acme", "zenith", None]
    result = send_bulk(
        (message(number, tenant_id=tenants[number % 3]) for number in range(30)), key="news"
    )
    assert result.accepted == 30
    assert sorted(set(used(emulator, keys))) == ["acme", "own", "zenith"]


# An account that is not to be had -----------------------------------------------------------------


def test_only_the_rows_of_an_unknown_tenant_are_paused(emulator, keys, put_for, dispatcher, travel):
    del keys["zenith"]
    emails = put_for("acme", "zenith", None)

    idle = dispatcher.drain().idle

    assert states_of(emails) == [State.DELIVERED, State.PENDING, State.DELIVERED]
    [paused] = health().paused
    assert paused.tenant == "zenith"
    assert paused.name.endswith("tenant zenith")
    assert "ACCOUNTS raised KeyError" in paused.reason
    assert paused.reason == reload(emails[1]).error
    assert any("zenith" in name for name in idle.paused)

    keys["zenith"] = "tr_test_zenith_key"
    travel(16)
    dispatcher.drain()
    assert states_of(emails) == [State.DELIVERED] * 3
    assert not OutboxAccount.objects.filter(error_code="configuration").exists()
    assert health().paused == ()


def test_a_tenant_that_is_known_again_need_not_wait_for_the_end_of_its_pause(
    keys, put_for, dispatcher
):
    del keys["zenith"]
    emails = put_for("zenith")
    dispatcher.drain()
    keys["zenith"] = "tr_test_zenith_key"
    dispatcher.drain()
    assert states_of(emails) == [State.DELIVERED]


def test_a_replaced_key_ends_the_pause_of_a_revoked_one(emulator, keys, put_for, dispatcher):
    emulator.reset(revoked_keys=[keys["acme"]], **NO_LIMITS)
    emails = put_for("acme", None)
    dispatcher.drain()
    emails += put_for("acme")
    dispatcher.drain()
    assert states_of(emails) == [State.SENDING, State.DELIVERED, State.PENDING]
    [paused] = health().paused
    assert paused.tenant == "acme"

    keys["acme"] = "tr_test_replaced"
    dispatcher.drain()
    assert states_of(emails) == [State.SENDING, State.DELIVERED, State.DELIVERED]
    assert health().paused == ()  # the earlier account keeps nothing any more


NONSENSE = {
    "a string": "tr_live_secret",
    "a dict without a key": {"api_key": None},
    "a dict of nothing": {"apikey": "tr_live_secret"},
    "an impossible key": {"api_key": "sk_secret"},
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_pauses_its_tenant_and_loses_nothing(
    nonsense, settings, emulator, keys, put_for, dispatcher, caplog
):
    settings.TRUNCUS = {
        **settings.TRUNCUS,
        "ACCOUNTS": lambda tenant, mailer: nonsense if tenant == "zenith" else None,
    }
    emails = put_for("zenith", "acme")
    dispatcher.drain()
    assert states_of(emails) == [State.PENDING, State.DELIVERED]
    [paused] = health().paused
    assert "ACCOUNTS returned" in paused.reason or "ACCOUNTS must return" in paused.reason
    assert "secret" not in paused.reason + caplog.text + reload(emails[0]).error


def test_a_worker_without_the_setting_sends_nothing_by_another_account(
    settings, emulator, put_for, dispatcher
):
    emails = put_for("acme", "shared")
    settings.TRUNCUS = {**settings.TRUNCUS, "ACCOUNTS": None}
    dispatcher.drain()
    assert states_of(emails) == [State.PENDING, State.DELIVERED]
    [paused] = health().paused
    assert "ACCOUNTS is not set" in paused.reason


@pytest.mark.parametrize("name", [None, "smtp"])
def test_an_outage_goes_by_the_fallback_mailer_of_the_account(
    name, settings, extra, put_for, dispatcher
):
    in_memory = "django.core.mail.backends.locmem.EmailBackend"
    if django.VERSION >= (6, 1):
        settings.MAILERS = {**settings.MAILERS, "smtp": {"BACKEND": in_memory}}
    elif name is not None:
        name = in_memory
    emails = put_for("acme")
    extra.update(base_url="http://127.0.0.1:9", fallback_mailer=name)
    dispatcher.drain()
    assert OutboxAccount.objects.get(tenant="acme").allows_fallback is (name is not None)
    assert states_of(emails) == [State.SENDING if name is None else State.SENT]
    assert reload(emails[0]).sent_by == (name or "")


def test_the_admin_and_the_doctor_say_which_tenant_is_paused(keys, put_for, dispatcher, may):
    del keys["zenith"]
    [email] = put_for("zenith")
    dispatcher.drain()
    found = [finding.found for finding in examine_outbox()]
    assert any("tenant zenith" in text and "ACCOUNTS raised KeyError" in text for text in found)
    client = may("view_email", "retry_email")
    assert "tenant zenith" in client.get(LOG).content.decode()
    assert "ACCOUNTS raised KeyError" in client.get(page_of(email)).content.decode()


def test_resume_lets_a_paused_tenant_go_on(emulator, keys, put_for, dispatcher):
    emulator.reset(revoked_keys=[keys["acme"]], **NO_LIMITS)
    emails = put_for("acme")
    dispatcher.drain()
    emulator.reset(**NO_LIMITS)
    [paused] = health().paused
    assert operations.resume(paused.account)
    dispatcher.drain()
    assert states_of(emails) == [State.DELIVERED]


# The 24 hours of a key ----------------------------------------------------------------------------


def test_a_lost_answer_is_repeated_under_its_key_by_its_account(
    emulator, keys, put_for, dispatcher, travel
):
    put_for("acme", "zenith")
    emulator.faults.next("reset_after")
    dispatcher.drain()
    travel(700)
    dispatcher.drain()
    assert sorted(used(emulator, keys)) == ["acme", "zenith"]
    sent_keys = keys_of(emulator)
    assert len(sent_keys) == 3
    assert len(set(sent_keys)) == 2


def test_after_a_lost_answer_another_key_sends_nothing_blindly(
    emulator, keys, put_for, dispatcher, travel
):
    emails = put_for("acme")
    emulator.faults.next("reset_after")
    dispatcher.drain()
    keys["acme"] = "tr_test_replaced"
    travel(700)
    dispatcher.drain()
    assert states_of(emails) == [State.UNKNOWN]
    assert "another account" in reload(emails[0]).error
    assert emulator.accepted == 1


def test_after_a_lost_answer_a_tenant_without_account_waits_and_goes_on(
    emulator, keys, put_for, dispatcher, travel
):
    emails = put_for("acme")
    emulator.faults.next("reset_after")
    dispatcher.drain()
    key = keys.pop("acme")
    travel(700)
    dispatcher.drain()
    assert OutboxBatch.objects.get().is_ambiguous
    keys["acme"] = key
    travel(700)
    dispatcher.drain()
    assert states_of(emails) == [State.DELIVERED]
    assert emulator.accepted == 1


# Pace and quota -----------------------------------------------------------------------------------


def test_each_account_has_a_pace_of_its_own(emulator, keys, extra, put_for):
    extra.update(requests_per_minute=1)
    put_for("acme", "zenith", "acme")
    dispatcher = Dispatcher()
    assert [dispatcher.step().accepted for _ in range(2)] == [2, 1]
    put_for("acme", "zenith", None)
    assert dispatcher.step().accepted == 1  # by the mailer's own account, which has no limits
    idle = dispatcher.step()
    assert idle.is_pace
    assert idle.wait_s(dispatcher.clock.now()) > 30
    assert len(emulator.requests) == 3


def test_a_request_that_was_not_made_leaves_the_pace_to_the_next(
    extra, put_for, dispatcher, settings
):
    settings.TRUNCUS = {**settings.TRUNCUS, "SUPPRESS": "manual"}
    extra["requests_per_second"] = 1
    [suppressed] = put_for("acme", to=["ann@example.net"])
    SuppressedAddress.objects.create(address="ann@example.net")
    dispatcher.step()
    assert reload(suppressed).state == State.REJECTED
    assert OutboxAccount.objects.get().free_at is None
    [email] = put_for("acme")
    dispatcher.step()
    assert reload(email).state == State.DELIVERED


def test_a_quota_reserve_holds_for_its_account_alone(emulator, extra, put_for, dispatcher, keys):
    emulator.reset(monthly_limit=10, **NO_LIMITS)
    extra.update(quota_reserve=9)
    put_for("acme")
    dispatcher.drain()
    emails = put_for("acme", None, priority="low")
    dispatcher.drain()
    assert states_of(emails) == [State.PENDING, State.DELIVERED]
    found = health()
    [held] = found.held_back
    assert (held.tenant, held.emails, held.reserved) == ("acme", 1, 9)
    assert "acme" in {quota.tenant for quota in found.quotas}


def _make_late() -> None:
    long_ago = timezone.now() - timedelta(seconds=1000)
    OutboxEntry.objects.update(created_at=long_ago)
    OutboxBatch.objects.update(due_at=long_ago)


def test_a_paused_tenant_hides_no_lack_of_workers(emulator, keys, put_for, dispatcher):
    put_for("acme", "zenith")
    dispatcher.drain()
    emulator.reset(revoked_keys=[keys["zenith"]], **NO_LIMITS)
    put_for("zenith", "zenith")
    dispatcher.drain()
    _make_late()
    assert [paused.tenant for paused in health().paused] == ["zenith"]
    assert not health().is_unattended

    put_for("acme")
    _make_late()
    assert health().is_unattended


def test_tenants_that_share_a_paused_account_wait_for_it(emulator, keys, put_for, dispatcher):
    keys["zenith"] = keys["acme"]
    emulator.reset(revoked_keys=[keys["acme"]], **NO_LIMITS)
    put_for("acme", "zenith")
    dispatcher.drain()
    _make_late()
    assert not health().is_unattended


def test_a_thousand_paused_tenants_cost_health_no_more_queries(keys, put_for, settings):
    put_for("acme")
    with CaptureQueriesContext(connection) as few:
        health()
    _add_tenants(1000, keys, settings)
    later = timezone.now() + timedelta(seconds=50)
    OutboxAccount.objects.bulk_create(
        [OutboxAccount(account=name, tenant=name, paused_until=later) for name in keys],
        batch_size=100,
    )
    with CaptureQueriesContext(connection) as many:
        assert len(health().paused) == len(keys)
    assert len(many) == len(few)


# Many tenants -------------------------------------------------------------------------------------


def _queries_of_a_claim(clock) -> int:
    clock.now()  # which is asked for the time at first
    with CaptureQueriesContext(connection) as captured:
        assert isinstance(claim(clock), Claim)
    return len(captured)


def _add_tenants(count, keys, settings) -> None:
    """Let one email of each of so many tenants wait, by a few inserts."""
    names = [f"tenant-{number}" for number in range(count)]
    keys.update({name: f"tr_test_{name}" for name in names})
    emails = [Email(state=State.PENDING, tenant_id=name) for name in names]
    Email.objects.bulk_create(emails, batch_size=100)
    OutboxEntry.objects.bulk_create(
        [
            OutboxEntry(
                email=email,
                tenant=email.tenant_id,
                size=2,
                priority=9,
                payload="{}",
                created_at=timezone.now(),
            )
            for email in emails
        ],
        batch_size=100,
    )


def test_a_thousand_tenants_with_work_cost_a_claim_no_more_queries_than_one(
    keys, put_for, dispatcher, settings, asked
):
    put_for("acme")
    alone = _queries_of_a_claim(dispatcher.clock)
    _add_tenants(1000, keys, settings)
    put_for("zenith")
    asked.clear()
    assert _queries_of_a_claim(dispatcher.clock) == alone
    assert asked == ["zenith"]


@pytest.mark.parametrize("why", ["paused", "paced"])
def test_a_thousand_tenants_that_must_wait_cost_a_claim_nothing(
    why, keys, put_for, dispatcher, settings, asked
):
    put_for("acme")
    alone = _queries_of_a_claim(dispatcher.clock)
    _add_tenants(1000, keys, settings)
    OutboxEntry.objects.update(priority=1)
    later = timezone.now() + timedelta(seconds=50)
    wait = {"paused_until": later, "error_code": "NETWORK_ERROR"}
    OutboxAccount.objects.bulk_create(
        [
            OutboxAccount(
                account=name,
                tenant=name,
                **(wait if why == "paused" else {"free_at": later}),
            )
            for name in keys
            if name.startswith("tenant-")
        ],
        batch_size=100,
    )
    put_for("zenith")
    asked.clear()
    assert _queries_of_a_claim(dispatcher.clock) == alone
    assert asked == ["zenith"]


def test_two_workers_send_each_email_once_by_its_own_account(emulator, site, settings, put_for):  # noqa: F811
    site.given["truncus"]["ACCOUNTS"] = "tests.outbox.tenants.account_for"
    tenants = [f"tenant-{number}" for number in range(6)]
    settings.TRUNCUS = {**settings.TRUNCUS, "ACCOUNTS": site.given["truncus"]["ACCOUNTS"]}
    for _ in range(3):
        put_for(*tenants, None)
    workers = [site.worker("--once", "--concurrency", "2") for _ in range(2)]
    assert [worker.status() for worker in workers] == [0, 0]
    assert emulator.accepted == 21
    for email in emulator.emails:
        own_key = f"tr_test_{email.tenant_id}" if email.tenant_id in tenants else OWN
        assert email.api_key == fingerprint(own_key)
    assert Email.objects.filter(state=State.DELIVERED).count() == 21


# After the send -----------------------------------------------------------------------------------


def test_sync_asks_by_the_account_of_the_tenant(emulator, keys, put_for, dispatcher):
    emails = put_for("acme", "zenith", "shared", None)
    dispatcher.drain()
    Email.objects.update(next_sync_at=timezone.now())
    result = SyncJob().run()
    assert (result.asked, result.failed) == (4, 0)
    assert result.is_clean
    assert states_of(emails) == [State.DELIVERED] * 4


def test_sync_gives_up_a_tenant_alone(emulator, keys, put_for, dispatcher):
    put_for("acme", "zenith", "shared", None, "zenith")
    dispatcher.drain()
    Email.objects.update(next_sync_at=timezone.now())
    del keys["zenith"]
    result = SyncJob().run()
    assert result.asked == 3
    [(name, why)] = result.stopped.items()
    assert name.endswith("tenant zenith")
    assert "ACCOUNTS raised KeyError" in why
    assert Email.objects.filter(next_sync_at__lte=timezone.now(), tenant_id="zenith").count() == 2


def test_the_admin_asks_cancels_and_resends_by_the_account_of_the_tenant(
    emulator, keys, put_for, dispatcher, settings
):
    sent, scheduled = (
        put_for("acme")[0],
        put_for("zenith", send_at=timezone.now() + timedelta(days=1))[0],
    )
    dispatcher.drain()
    assert actions._sync_one(reload(sent)).level != messages.ERROR
    actions._cancel_one(reload(scheduled))
    assert reload(scheduled).state == State.CANCELLED
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "direct", "RECORD": True}
    Email.objects.filter(pk=sent.pk).update(html_body="<p>Hi</p>")
    resend(reload(sent), click=uuid4())
    assert [email.api_key for email in emulator.emails if email.tenant_id == "acme"] == [
        fingerprint(keys["acme"])
    ] * 2


def test_the_worker_says_which_tenant_is_paused(keys, put_for, dispatcher):
    del keys["zenith"]
    put_for("zenith")
    stream = StringIO()
    _Output(OutputWrapper(stream), 1, is_once=False).on_idle(dispatcher.drain().idle)
    assert "tenant zenith' is paused: ACCOUNTS raised KeyError" in stream.getvalue()


def test_a_thousand_paused_tenants_are_no_thousand_lines(may):
    later = timezone.now() + timedelta(minutes=5)
    OutboxAccount.objects.bulk_create(
        OutboxAccount(account=f"tenant:{number}", tenant=f"t{number}", paused_until=later)
        for number in range(30)
    )
    AccountQuota.objects.bulk_create(
        AccountQuota(account=f"quota-{number}", tenant=f"t{number}", told_at=timezone.now())
        for number in range(30)
    )
    assert len(health().paused) == 30
    found = [finding.found for finding in examine_outbox()]
    assert "10 more accounts are paused." in found
    assert [finding.what for finding in examine_quota() if "tenant" in finding.what] == []
    page = may("view_email").get(LOG + "dashboard/").content.decode()
    assert "10 more accounts are paused." in page
    assert page.count("tenant t") == 20 + 20


def test_reports_name_no_tenant_whose_id_is_an_address(keys, put_for, dispatcher):
    put_for("ann@example.org")
    idle = dispatcher.drain().idle
    assert not any("@" in name for name in idle.paused)
    assert not any("@" in finding.found for finding in examine_outbox())


@pytest.mark.parametrize("delivery", ["outbox", "direct"])
def test_without_a_key_of_the_projects_own_tenants_send(
    delivery, settings, emulator, keys, message, dispatcher
):
    settings.TRUNCUS = {
        **settings.TRUNCUS,
        "API_KEY": None,
        "DELIVERY": delivery,
        "RECORD": True,
    }
    result = send_bulk([message(0, tenant_id="acme"), message(1, tenant_id="zenith")])
    dispatcher.drain()
    assert result.failed == 0
    assert sorted(used(emulator, keys)) == ["acme", "zenith"]
    with pytest.raises(ImproperlyConfigured, match="no API key"):
        put_all([message(3)])
