"""What can be set on the emulator: one frozen class for Python and the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from truncus_django.api import contract


class SpokenDialect(StrEnum):
    """Which of the two published descriptions of the API is spoken."""

    MANUAL = "manual"
    SDK = "sdk"


class DomainState(StrEnum):
    """What Truncus knows about a sending domain."""

    VERIFIED = "verified"
    NOT_FOUND = "not_found"
    NOT_VERIFIED = "not_verified"
    PAUSED = "paused"


class BatchReplay(StrEnum):
    """What a repeated batch key answers; it is not published, so both readings are offered."""

    FIRST = "first"
    DUPLICATE = "duplicate"


class BatchRefusal(StrEnum):
    """What one invalid item does to its batch: fails alone, or takes the whole with it."""

    ITEM = "item"
    WHOLE = "whole"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Everything that can be set on an emulator.

    The defaults are for test suites, without request limits; the command line defaults to the
    limits of a real account, 10 requests a second and 60 a minute.

    Raises:
        ValueError: a value is out of range or names something unknown.
    """

    dialect: str = SpokenDialect.MANUAL

    api_keys: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)
    """API key to its scopes. Empty accepts every key that begins with ``tr_``, with all scopes."""
    revoked_keys: Sequence[str] = field(default=(), repr=False)
    domains: Mapping[str, str] = field(default_factory=dict)
    """Domain to its `DomainState`."""
    verified_domains: Sequence[str] = ()
    """When given, every domain that is neither here nor in ``domains`` is not found."""
    templates: Mapping[str, str] = field(default_factory=dict)
    """Template id to its HTML with ``{{name}}`` places. Empty accepts every id, as a stub."""
    suppressed: Sequence[str] = ()
    """Addresses on the suppression list from the start, for every tenant."""

    requests_per_second: int = 0
    """Per API key; 0 means no limit."""
    requests_per_minute: int = 0
    """Per API key; 0 means no limit."""
    monthly_limit: int = 250_000
    """Emails per API key and calendar month (UTC), the largest plan; 0 means no limit."""
    daily_limit: int = 0
    """Emails per sending domain and day (UTC), as while it warms up; 0 means no limit."""

    batch_replay: str = BatchReplay.FIRST
    batch_refusal: str = BatchRefusal.ITEM
    dedup_window_s: float = 0.0
    """Equal content within this many seconds is not sent again (dialect ``sdk``); 0 is off."""

    delivery_delay_s: float = 0.1
    """Seconds between the steps of simulated delivery: sent, delivered, opened, clicked."""
    retry_delay_s: float = 0.3
    """Seconds until a deferred email is tried again."""
    suppress_after_bounce: bool = False
    """Put an address that bounced or complained on its tenant's suppression list."""

    webhook_url: str = ""
    webhook_secret: str = field(default="", repr=False)
    webhook_delay_s: float = 0.0
    """Seconds each webhook is held back."""
    webhook_duplicates: int = 0
    """How many more times each webhook is sent."""
    webhook_shuffle_s: float = 0.0
    """Each webhook is late by a random time of up to this many seconds, so that order is lost."""
    webhook_backoff_s: Sequence[float] = (0.5, 2.0, 10.0, 30.0, 60.0)
    """Seconds before each repetition of a webhook that was not acknowledged with HTTP 200."""
    webhook_threads: int = 1
    """How many webhooks are posted at the same time."""
    webhook_bad_signatures: float = 0.0
    """Share of webhooks, 0 to 1, before which one with a wrong signature is sent too."""
    webhook_stale: float = 0.0
    """Share of webhooks, 0 to 1, before which one signed 10 minutes ago is sent too."""
    webhook_event_ids: bool = False
    """Add ``event_id`` to each webhook's body. The published body has none."""

    latency_s: float = 0.0
    """Seconds each answer of the API takes."""
    fault_rates: Mapping[str, float] = field(default_factory=dict)
    """``"reset_after"`` or ``"reset_after@batch"`` to the share of requests it strikes, 0 to 1."""
    seed: int = 0
    """Seed of the random faults, of the webhooks' shuffling and of the bad webhooks."""

    keep: int = 10_000
    """How many bodies (and request records) are kept; counts and states are kept for all."""

    def __post_init__(self) -> None:
        """Refuse values that make no sense, so that a misspelling never runs silently."""
        choices = (
            ("dialect", SpokenDialect),
            ("batch_replay", BatchReplay),
            ("batch_refusal", BatchRefusal),
        )
        for name, choice in choices:
            if getattr(self, name) not in list(choice):
                raise ValueError(f"{name} is one of {', '.join(choice)}")
        for domain, state in self.domains.items():
            if state not in list(DomainState):
                raise ValueError(f"the state of {domain} is one of {', '.join(DomainState)}")
        for scopes in self.api_keys.values():
            if isinstance(scopes, str) or not set(scopes) <= {
                contract.SEND_SCOPE,
                contract.READ_SCOPE,
            }:
                raise ValueError(f"scopes are {contract.SEND_SCOPE} and {contract.READ_SCOPE}")
        for key in (*self.api_keys, *self.revoked_keys):
            if not key.startswith(contract.API_KEY_PREFIX):
                raise ValueError(f"API keys begin with {contract.API_KEY_PREFIX}")
        for name, value in vars(self).items():
            if isinstance(value, int | float) and name != "seed" and value < 0:
                raise ValueError(f"{name} is not negative")
        if any(backoff_s < 0 for backoff_s in self.webhook_backoff_s):
            raise ValueError("webhook_backoff_s is not negative")
        for name in ("keep", "webhook_threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1")
        for name in ("webhook_bad_signatures", "webhook_stale"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} is between 0 and 1")
        if self.webhook_url and not self.webhook_secret:
            raise ValueError("webhook_url needs a webhook_secret to sign with")
