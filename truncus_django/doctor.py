"""Finds out whether everything that sending, the log and webhooks need is in order.

Each examination yields findings: what was looked at, what was found, and what to do about it.
Nothing is ever delivered: Truncus is asked to validate, and to take two emails in its sandbox.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from secrets import token_hex
from typing import Any

from django.apps import apps
from django.conf import settings as django_settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.migrations.executor import MigrationExecutor
from django.db.models import Count, Min
from django.db.models.functions import Left
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from truncus_django.ages import span
from truncus_django.api import contract
from truncus_django.api.capabilities import Capabilities
from truncus_django.api.client import TruncusClient
from truncus_django.api.dialect import Dialect, capabilities_in
from truncus_django.api.errors import (
    ConfigurationError,
    Conflict,
    DomainError,
    InvalidAnswer,
    InvalidRequest,
    NotFound,
    TruncusError,
    hint_for,
    loggable_code,
)
from truncus_django.checks import check_settings
from truncus_django.conf import Settings, get_settings, mailers
from truncus_django.log.sync import Selection
from truncus_django.mailers import get_mailer, label_of
from truncus_django.models import EmailEvent, SuppressedAddress, database
from truncus_django.outbox.health import (
    HeldBack,
    OutboxHealth,
    PausedAccount,
    health,
    is_in_use,
)
from truncus_django.quota.keeping import note_answer, told_by_quota
from truncus_django.quota.overview import Quota, quotas
from truncus_django.sending.fallback import fallback_of
from truncus_django.sending.forgotten import DIGESTS_BEGIN, KEY_LENGTH, is_of_a_known_key

__all__ = ["Finding", "Level", "examine"]

SLOW_S = 2.0
SKEW_NOTED_S = 30.0
"""From here on a clock is worth a word; webhooks are refused at ``WEBHOOK_TOLERANCE_S``."""
OVERDUE = timedelta(hours=1)
ORPHAN = timedelta(minutes=10)
"""How long an event may wait for its email to be recorded."""
MAX_PAUSED = 20
"""So many paused accounts are named: each of a thousand tenants may have one."""
QUOTA_NOTED_SHARE = 0.8
"""From this used part of a quota on it is worth a word."""
OUTBOX_LATE_S, OUTBOX_TOO_LATE_S = 15 * 60.0, 60 * 60.0
"""From which age of the oldest email in the outbox on it is worth a word, or bad."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the thing, in a few words.
        found: how it is.
        advice: what to do about it; empty where nothing is to be done.
    """

    level: Level
    what: str
    found: str
    advice: str = ""


_ok = partial(Finding, Level.OK)
_warn = partial(Finding, Level.WARN)
_fail = partial(Finding, Level.FAIL)


def examine(*, network: bool = True) -> Iterator[Finding]:
    """Yield all findings, each as soon as it is made.

    Args:
        network: whether Truncus may be asked, too.
    """
    yield from examine_settings()
    for mailer in _mailer_names():
        yield from examine_mailer(mailer, network=network)
    yield from examine_webhook()
    yield from examine_log()
    yield from examine_quota()
    yield from examine_outbox()


# Settings -----------------------------------------------------------------------------------------


def examine_settings() -> Iterator[Finding]:
    """Yield what the system checks say."""
    problems = check_settings()
    for problem in problems:
        level = Level.FAIL if problem.level >= checks.ERROR else Level.WARN
        advice = problem.hint or "Correct the setting; docs/settings.md tells what it may be."
        yield Finding(level, "settings", f"{problem.msg} ({problem.id})", advice)
    if not problems and not _mailer_names():
        yield _warn(
            "settings",
            "No mailer of the project is Truncus.",
            "Set EMAIL_BACKEND, or a mailer's BACKEND, to truncus_django.backend.TruncusBackend.",
        )
    elif not problems:
        yield _ok("settings", "No objections.")
    if not any(problem.level >= checks.ERROR for problem in problems):
        yield from _examine_guard()


def _examine_guard() -> Iterator[Finding]:
    settings = get_settings()
    if settings.redirect_to:
        to = ", ".join(settings.redirect_to)
        found = f"It is on: emails go to {to} instead of their recipients."
    elif settings.allow_recipients:
        found = "It is on: emails to others than ALLOW_RECIPIENTS are refused."
    else:
        return
    if settings.allow_recipients:
        found += f" ALLOW_RECIPIENTS has {len(settings.allow_recipients)} entries."
    advice = "Remove REDIRECT_TO and ALLOW_RECIPIENTS where emails are to reach people."
    yield _warn("staging guard", found, advice)


def _mailer_names() -> list[str]:
    return [alias or "" for alias, _ in mailers()]


# Truncus ------------------------------------------------------------------------------------------


def examine_mailer(mailer: str, *, network: bool = True) -> Iterator[Finding]:
    """Yield what is found about a mailer's key and account."""
    name = f" ({mailer})" if mailer else ""
    try:
        found = get_mailer(mailer)
        if found.settings.api_key is None and found.settings.accounts is not None:
            yield _ok("API key" + name, "None of its own; ACCOUNTS tells those of tenants.")
            return
        settings, client = found.settings, found.client
    except ConfigurationError as error:
        yield _fail("API key" + name, error.message, "Set TRUNCUS['API_KEY'].")
        return
    is_live = (settings.api_key or "").startswith(contract.LIVE_KEY_PREFIX)
    kind = "A live key" if is_live else "A key that is not live"
    sandbox = ", in the sandbox" if settings.sandbox else ""
    yield _ok("API key" + name, f"{kind} for {client.base_url}{sandbox}.")
    yield from _examine_fallback(settings, name, network=network)
    if not network:
        return
    reached = list(_examine_connection(client, name))
    yield from reached
    if any(finding.level is Level.FAIL for finding in reached):
        return
    yield from _examine_reading(client, name)
    yield from _examine_dialect(settings, name)


def _examine_fallback(settings: Settings, name: str, *, network: bool) -> Iterator[Finding]:
    """Yield whether the fallback mailer can be used; it is connected to, and sends nothing."""
    what = "fallback mailer" + name
    try:
        fallback = fallback_of(settings)
    except ConfigurationError as error:
        yield _fail(what, error.message, "Correct FALLBACK_MAILER, or remove it.")
        return
    if fallback is None:
        return
    if network:
        try:
            with fallback:
                fallback.open()
        except Exception as exc:  # noqa: BLE001  whatever the other mailer raises
            advice = "Check its settings: it is needed when Truncus fails."
            yield _fail(what, f"{fallback.name} cannot be used ({type(exc).__name__}).", advice)
            return
    yield _ok(what, f"{fallback.name} sends what Truncus cannot take.")


def _examine_connection(client: TruncusClient, name: str) -> Iterator[Finding]:
    try:
        check = client.check()
    except TruncusError as error:
        advice = error.hint or "Check BASE_URL, the key, the network and its proxies."
        yield _fail("Truncus" + name, _told(error), advice)
        return
    milliseconds = round(check.latency_s * 1000)
    if check.latency_s < SLOW_S:
        yield _ok("Truncus" + name, f"Knows the key; answers in {milliseconds} ms.")
    else:
        yield _warn(
            "Truncus" + name,
            f"Knows the key; answers in {milliseconds} ms.",
            "That is slow: look at the network, or send through the outbox.",
        )
    yield _examine_clock(check.server_time, name)


def _examine_clock(server_time: datetime | None, name: str) -> Finding:
    what = "clock" + name
    if server_time is None:
        return _ok(what, "Truncus did not tell its time.")
    skew_s = datetime.now(server_time.tzinfo).timestamp() - server_time.timestamp()
    if abs(skew_s) < SKEW_NOTED_S:
        return _ok(what, "Agrees with that of Truncus.")
    found = f"{span(abs(skew_s))} {'ahead of' if skew_s > 0 else 'behind'} that of Truncus."
    advice = "Set this machine's clock by NTP."
    if abs(skew_s) < contract.WEBHOOK_TOLERANCE_S:
        return _warn(what, found, advice)
    return _fail(what, found, f"{advice} Webhooks are refused as stale.")


def _examine_reading(client: TruncusClient, name: str) -> Iterator[Finding]:
    """Yield whether the key may read, by asking about an email that does not exist."""
    what = "reading" + name
    try:
        client.get_email("truncus-doctor")
    except (NotFound, InvalidRequest, Conflict):
        yield _ok(what, "The key may read emails.")
    except TruncusError as error:
        advice = error.hint or "truncus_sync needs it; webhooks do not."
        yield _fail(what, _told(error), advice)
    else:
        yield _ok(what, "The key may read emails.")


def _examine_dialect(settings: Settings, name: str) -> Iterator[Finding]:
    """Yield which form of emails the account takes, from two sends in the sandbox."""
    what = "dialect" + name
    # Pinned, so that nothing is tried twice.
    client = TruncusClient.from_settings(replace(settings, sandbox=True, dialect=Dialect.MANUAL))
    try:
        needs_html = _refuses(client, to=_RECIPIENT).html_required
        needs_one = _refuses(client, to=[_RECIPIENT], html="<p>Check</p>").single_recipient
    except TruncusError as error:
        advice = error.hint or "Try again; set TRUNCUS['DIALECT'] where you know it."
        if isinstance(error, DomainError | InvalidRequest):
            advice = f"{advice} DEFAULT_FROM_EMAIL must be of a domain that Truncus has verified."
        yield _fail(what, _told(error), advice)
        return
    facts = (
        "wants HTML beside text" if needs_html else "takes text alone",
        "wants one recipient in 'to'" if needs_one else "takes a list in 'to'",
    )
    found = f"The account {' and '.join(facts)}. {_HOW_FOUND_OUT}"
    if settings.dialect == Dialect.MANUAL and (needs_html or needs_one):
        yield _fail(
            what, f"{found} TRUNCUS['DIALECT'] is 'manual'.", "Set it to 'sdk', or to 'auto'."
        )
    elif settings.dialect == Dialect.AUTO and (needs_html or needs_one):
        yield _ok(what, found, "TRUNCUS['DIALECT'] = 'sdk' spares each process a refusal.")
    else:
        yield _ok(what, found)


_HOW_FOUND_OUT = "Found out by sending two emails in the sandbox."
_RECIPIENT = "truncus-doctor@example.com"
"""Nobody: example.com takes no email (RFC 2606), should the sandbox ever leak."""


def _refuses(client: TruncusClient, **fields: Any) -> Capabilities:
    """Return what a sandbox send is refused for; all else that goes wrong is raised."""
    email = {
        "from": django_settings.DEFAULT_FROM_EMAIL,
        "subject": f"Check of the dialect {token_hex(4)}",
        "text": "Check",
        **fields,
    }
    try:
        result = client.send(email, sandbox=True)
    except InvalidRequest as error:
        capabilities = capabilities_in(error.message, email)
        if capabilities == Capabilities():
            raise
        return capabilities
    if result.is_accepted and not result.is_sandbox:
        raise InvalidAnswer("The answer to a sandbox send does not say that it was one")
    if get_settings().record and apps.is_installed("truncus_django"):
        note_answer(client.account, told_by_quota(result.quota), get_settings())
    return Capabilities()


def _told(error: TruncusError) -> str:
    """Return what went wrong, without the hint, which is given as advice."""
    facts = [error.code, f"HTTP {error.status}" if error.status else None]
    told = ", ".join(fact for fact in facts if fact)
    sentence = error.message.rstrip(".")
    return f"{sentence} ({told})." if told else f"{sentence}."


# Webhooks -----------------------------------------------------------------------------------------


def examine_webhook() -> Iterator[Finding]:
    """Yield whether webhooks can come in."""
    try:
        count = len(get_settings().webhook_secrets)
    except ConfigurationError:
        return  # the settings' findings tell
    try:
        url = _webhook_url()
    except Exception as exc:  # noqa: BLE001  importing the urls runs the project's own code
        yield _fail(
            "webhook",
            f"The project's urls cannot be loaded ({type(exc).__name__}).",
            "Run manage.py check, which tells where.",
        )
        return
    if url is None and not count:
        yield _warn(
            "webhook",
            "Not set up: states come from truncus_sync alone.",
            "Include truncus_django.urls in your urls, and set TRUNCUS['WEBHOOK_SECRETS'].",
        )
    elif url is None:
        yield _fail(
            "webhook",
            "There is a secret, and no URL.",
            'Add path("truncus/", include("truncus_django.urls")) to your urls.',
        )
    elif not count:
        yield _fail(
            "webhook",
            f"{url} refuses every webhook: there is no secret.",
            "Set TRUNCUS['WEBHOOK_SECRETS'] to the one that Truncus shows.",
        )
    else:
        secrets = "one secret" if count == 1 else f"{count} secrets"
        yield _ok(
            "webhook",
            f"{url}, verified by {secrets}; whether Truncus has the same, its webhooks show.",
        )


def _webhook_url() -> str | None:
    if not getattr(django_settings, "ROOT_URLCONF", None):
        return None
    try:
        return reverse("truncus_django:webhook")
    except (NoReverseMatch, ImproperlyConfigured):
        return None


# The log ------------------------------------------------------------------------------------------


def examine_log() -> Iterator[Finding]:
    """Yield whether the log's tables are there and up to date, and what waits in them."""
    if not apps.is_installed("truncus_django"):
        yield _warn(
            "log",
            "truncus_django is not in INSTALLED_APPS: nothing is recorded.",
            "Add it for the log, the admin and webhooks.",
        )
        return
    examinations: tuple[Callable[[], Finding], ...] = (
        _examine_migrations,
        _examine_overdue,
        _examine_orphans,
    )
    for examination in examinations:
        try:
            finding = examination()
        except ConfigurationError:
            return  # the settings' findings tell
        except Exception as exc:  # noqa: BLE001  it is down, or set up wrongly in whatever way
            yield _fail(
                "log",
                f"The database cannot be used ({type(exc).__name__}).",
                "Check DATABASES, DATABASE_ROUTERS, MIGRATION_MODULES and TRUNCUS['DATABASE']; "
                "manage.py migrate --plan tells more.",
            )
            return
        yield finding
        if finding.level is Level.FAIL:
            return  # without its tables there is nothing to look into
    yield from _examine_forgotten()


def _examine_forgotten() -> Iterator[Finding]:
    """Yield whether anybody who was forgotten would be mailed again, for want of a key."""
    digests = SuppressedAddress.objects.filter(address__startswith=DIGESTS_BEGIN).order_by()
    keys = digests.annotate(key=Left("address", KEY_LENGTH)).values_list("key")
    lost = sum(count for key, count in keys.annotate(Count("pk")) if not is_of_a_known_key(key))
    if lost:
        yield _warn(
            "suppression",
            f"{lost} suppressed addresses of people who were forgotten hold no more: SECRET_KEY "
            "was changed since.",
            "Add the former SECRET_KEY to SECRET_KEY_FALLBACKS.",
        )


def _examine_migrations() -> Finding:
    using = database()
    executor = MigrationExecutor(connections[using])
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "truncus_django"]
    missing = len(executor.migration_plan(targets))
    if missing:
        migrations = "one migration" if missing == 1 else f"{missing} migrations"
        option = "" if using == "default" else f" --database {using}"
        return _fail(
            "log",
            f"The tables lack {migrations}.",
            f"Run manage.py migrate truncus_django{option}.",
        )
    if not get_settings().record:
        return _warn(
            "log",
            "The tables are up to date, and RECORD is off.",
            "Set TRUNCUS['RECORD'] = True to record what is sent.",
        )
    return _ok("log", "The tables are up to date.")


def _examine_overdue() -> Finding:
    overdue = Selection().due(timezone.now() - OVERDUE).order_by()
    found = overdue.aggregate(count=Count("pk"), oldest=Min("next_sync_at"))
    if not found["count"]:
        return _ok("sync", f"Nothing is overdue by more than {_words(OVERDUE)}.")
    since = span((timezone.now() - found["oldest"]).total_seconds())
    return _warn(
        "sync",
        f"{found['count']} emails are overdue, the longest for {since}.",
        "Run manage.py truncus_sync every minute, from cron or a timer.",
    )


def _examine_orphans() -> Finding:
    orphans = EmailEvent.objects.filter(email=None, received_at__lt=timezone.now() - ORPHAN)
    count = orphans.order_by().count()
    if not count:
        return _ok("events", "All found their email.")
    return _warn(
        "events",
        f"{count} events belong to no recorded email.",
        "Another system sends with this account, or RECORD was off. truncus_purge removes them.",
    )


# The quota ----------------------------------------------------------------------------------------


def examine_quota() -> Iterator[Finding]:
    """Yield how much of each account's monthly quota is used up, as far as Truncus has told."""
    if not apps.is_installed("truncus_django"):
        return
    try:
        found = quotas()
    except Exception:  # noqa: BLE001  whatever it is: the findings about settings and log tell
        return
    for quota in found:
        finding = _examine_quota(quota)
        if not quota.tenant or finding.level is not Level.OK:  # there may be a thousand tenants
            yield finding
        if quota.capped_until is not None:
            yield _warn(
                f"warm-up ({_label(quota)})",
                f"Emails from {', '.join(quota.capped_domains)} were refused today: it seems that "
                f"a daily cap is used up, for another {_until(quota.capped_until, quota)}. Truncus "
                "tells no figures of these caps.",
                "Wait, or send less from a domain that is new; its cap grows by itself.",
            )


def _examine_quota(quota: Quota) -> Finding:
    what, renewed = f"quota ({_label(quota)})", f"renewed in {_until(quota.renewed_at, quota)}"
    if quota.is_used_up:
        of = "" if quota.limit is None else f" of {quota.limit:,}"
        return _fail(what, f"All emails{of} are used up; {renewed}.", _LARGER_PLAN)
    if quota.left is None or quota.told_at is None:
        return _ok(what, f"Truncus has not told it in this month; {renewed}.")
    figures = f"{quota.used:,} of {quota.limit:,} emails used, {quota.left:,} left; {renewed}."
    if quota.is_stale:
        age = span(quota.at.timestamp() - quota.told_at.timestamp())
        return _ok(what, f"{figures} That was told {age} ago.")
    figures += f" {round(quota.emails_per_day):,} a day at present"
    if quota.runs_out_at is not None:
        found = f"{figures}: they run out in {_until(quota.runs_out_at, quota)}."
        return _warn(what, found, _LARGER_PLAN)
    if (quota.share or 0.0) >= QUOTA_NOTED_SHARE:
        return _warn(what, f"{figures}: they last until then.", _LARGER_PLAN)
    return _ok(what, f"{figures}: they last until then.")


_LARGER_PLAN = (
    "Choose a larger plan in Truncus, or send less; QUOTA_RESERVE keeps some for what is urgent."
)


def _label(account: Quota | PausedAccount | HeldBack) -> str:
    """Return the name of an account as logs may hold it: reports end up there."""
    if isinstance(account, HeldBack):
        return label_of(account.mailer, account.tenant)
    return label_of(account.mailers[0], account.tenant) if account.tenant else account.name


def _until(moment: datetime, quota: Quota) -> str:
    return span(moment.timestamp() - quota.at.timestamp())


# The outbox ---------------------------------------------------------------------------------------


def examine_outbox() -> Iterator[Finding]:
    """Yield how much waits in the outbox, for how long, and what keeps it; nothing without one."""
    if not apps.is_installed("truncus_django"):
        return
    try:
        if database() in connections and is_in_use():
            yield from _examine_outbox(health())
    except Exception:  # noqa: BLE001  whatever it is: the findings about settings and log tell
        return


def _examine_outbox(found: OutboxHealth) -> Iterator[Finding]:
    if not connections[database()].features.supports_transactions:
        yield _fail(
            "outbox",
            "Its tables know no transactions: emails can be lost, or sent twice.",
            "Change their engine to InnoDB.",
        )
    yield _examine_depth(found)
    for account in found.paused[:MAX_PAUSED]:
        left = span(account.until.timestamp() - found.at.timestamp())
        hint = hint_for(account.error_code)
        # Not what Truncus wrote, which may be about an email: reports end up in logs.
        reason = (
            account.reason.rstrip(".")
            if account.is_misconfigured
            else loggable_code(account.error_code) or "see the outbox in the admin for the error"
        )
        yield _warn(
            "outbox: account",
            f"No requests for {_label(account)} for another {left}: {reason}.",
            hint or "Put right what it says; it goes on by itself, or at once from the admin.",
        )
    if len(found.paused) > MAX_PAUSED:
        more = len(found.paused) - MAX_PAUSED
        yield _warn("outbox: accounts", f"{more} more accounts are paused.", "See the log's admin.")
    for held in found.held_back:
        label = _label(held)
        mailer = f" of {label}" if label else ""
        waits = _counted(held.emails, found, "email", "emails")
        yield _warn(
            "outbox: reserve",
            f"{waits}{mailer} with low priority held back: {held.left:,} emails are left of this "
            f"month's quota, and QUOTA_RESERVE keeps {held.reserved:,}.",
            "They go out when the month ends or the quota grows. Choose a larger plan in Truncus, "
            "or lower QUOTA_RESERVE.",
        )
    if found.unknown:
        count = _counted(found.unknown, found, "email", "emails")
        yield _warn(
            "outbox: unknown",
            f"{count} may have been sent or not: the answer was lost.",
            "Look for the recipients in Truncus, then decide in the admin.",
        )


def _examine_depth(found: OutboxHealth) -> Finding:
    waiting = _counted(found.pending, found, "email waits", "emails wait")
    age = "" if found.oldest_age_s is None else f", the oldest for {span(found.oldest_age_s)}"
    depth = f"{waiting}, {found.sending} in requests{age}."
    if found.is_unattended:
        dead = "" if not found.overdue_leases else " A worker has died, and none took over."
        return _fail(
            "outbox",
            f"{depth}{dead} No worker seems to run.",
            "Start manage.py truncus_worker, or look after Celery or the tasks' worker.",
        )
    oldest_s = found.oldest_age_s or 0.0
    if oldest_s >= OUTBOX_LATE_S:
        level = Level.FAIL if oldest_s >= OUTBOX_TOO_LATE_S else Level.WARN
        advice = "See what the admin tells of the oldest; more workers do not help under limits."
        return Finding(level, "outbox", depth, advice)
    return _ok("outbox", depth)


def _counted(count: int, found: OutboxHealth, one: str, many: str) -> str:
    more = "+" if count == found.counted_up_to else ""
    return f"{count}{more} {one if count == 1 else many}"


def _words(length: timedelta) -> str:
    hours = round(length.total_seconds() / 3600)
    return "an hour" if hours == 1 else f"{hours} hours"
