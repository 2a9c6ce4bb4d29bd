"""Signed webhooks to one URL, from background threads, repeated until HTTP 200 comes back.

To test what a receiver refuses, bad webhooks can be sent along with the good ones; `WebhookFlaw`
says in which ways they are bad.
"""

import heapq
import itertools
import json
import logging
import random
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from truncus_django.api import contract
from truncus_django.api.webhooks import sign
from truncus_django.emulator.options import Options

logger = logging.getLogger("truncus_django.emulator")

_TIMEOUT_S = 5.0
_ATTEMPTS_KEPT = 10_000
_STALE_S = 600
"""Twice the age at which the manual tells receivers to refuse a webhook."""


_TROUBLES = {
    0: f"no answer within {_TIMEOUT_S:g} s; does the project run at that URL?",
    403: "HTTP 403: the receiver has another secret, or none",
    404: "HTTP 404: the receiver has no such URL",
}


class WebhookFlaw(StrEnum):
    """What is wrong with a webhook that a receiver must refuse."""

    BAD_SIGNATURE = "bad_signature"
    """It was signed with another secret."""
    STALE = "stale"
    """Its signature is good, but 10 minutes old."""


@dataclass(frozen=True, slots=True)
class WebhookAttempt:
    """One try to deliver one webhook."""

    body: Mapping[str, Any]
    status: int
    """The HTTP status of the receiver's answer; 0 when there was none."""
    number: int
    """1 for the first try."""
    flaw: WebhookFlaw | None = None
    """What was wrong with it on purpose; None for a good one."""


@dataclass(frozen=True, slots=True)
class _Webhook:
    body: Mapping[str, Any]
    tries: int = 0
    flaw: WebhookFlaw | None = None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is not HTTP 200, so it acknowledges nothing and is not followed."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Follow nothing."""


class WebhookSender:
    """A queue of webhooks and the threads that work it off. Safe to use from any thread."""

    def __init__(self, options: Options) -> None:
        """Begin with nothing to send; the threads start with the first webhook."""
        self._options = options
        self._random = random.Random(options.seed)  # noqa: S311 - repeatable on purpose
        # A sequence of its own, so that bad webhooks do not change how the good ones are shuffled.
        self._flaw_random = random.Random(f"flaws {options.seed}")  # noqa: S311
        self._flaw_rates = (
            (WebhookFlaw.BAD_SIGNATURE, options.webhook_bad_signatures),
            (WebhookFlaw.STALE, options.webhook_stale),
        )
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, _Webhook]] = []
        self._busy = 0
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self.attempts: deque[WebhookAttempt] = deque(maxlen=_ATTEMPTS_KEPT)
        self.trouble = ""
        """Why the newest webhook was not acknowledged; empty if it was."""

    def dispatch(self, body: Mapping[str, Any]) -> None:
        """Send a webhook soon, again as often as the options say, and bad ones with it."""
        with self._changed:
            if self._stopped:
                return
            # First, so that a receiver which remembers before it verifies loses the good one.
            for flaw, rate in self._flaw_rates:
                if self._flaw_random.random() < rate:
                    self._put_shuffled(_Webhook(body, flaw=flaw), self._flaw_random)
            for _ in range(1 + self._options.webhook_duplicates):
                self._put_shuffled(_Webhook(body), self._random)
            if not self._threads:
                self._start()

    def is_idle(self) -> bool:
        """Return whether nothing waits to be sent or repeated."""
        with self._changed:
            return not self._waiting and not self._busy

    def stop(self) -> None:
        """Drop what waits and end the threads."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
        deadline = time.monotonic() + _TIMEOUT_S + 1
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def _start(self) -> None:
        self._threads = [
            threading.Thread(target=self._work, name="truncus-emulator-webhooks", daemon=True)
            for _ in range(self._options.webhook_threads)
        ]
        for thread in self._threads:
            thread.start()

    def _put_shuffled(self, webhook: _Webhook, shuffling: random.Random) -> None:
        self._put(webhook, shuffling.uniform(0, self._options.webhook_shuffle_s))

    def _put(self, webhook: _Webhook, late_s: float) -> None:
        due = time.monotonic() + late_s
        heapq.heappush(self._waiting, (due, next(self._numbers), webhook))
        self._changed.notify_all()

    def _work(self) -> None:
        opener = _opener()
        while (webhook := self._next()) is not None:
            status = self._post(webhook, opener)
            with self._changed:
                self.attempts.append(
                    WebhookAttempt(webhook.body, status, webhook.tries + 1, webhook.flaw)
                )
                if webhook.flaw is None:
                    self._note(status)
                    if status != 200:
                        self._repeat(webhook)
                self._busy -= 1
                self._changed.notify_all()

    def _note(self, status: int) -> None:
        """Log why webhooks are not acknowledged, once until that changes."""
        trouble = "" if status == 200 else _TROUBLES.get(status, f"HTTP {status}")
        if trouble and trouble != self.trouble:
            logger.warning(
                "Webhooks are not acknowledged: %s.",
                trouble,
                extra={
                    "truncus_event": "emulator_webhooks_not_acknowledged",
                    "truncus_http_status": status,
                },
            )
        self.trouble = trouble

    def _repeat(self, webhook: _Webhook) -> None:
        backoff_s = self._options.webhook_backoff_s
        if webhook.tries < len(backoff_s) and not self._stopped:
            self._put(replace(webhook, tries=webhook.tries + 1), backoff_s[webhook.tries])

    def _next(self) -> _Webhook | None:
        """Wait for a webhook that is due; None when the sender was stopped."""
        with self._changed:
            while not self._stopped:
                wait_s = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait_s is not None and wait_s <= 0:
                    self._busy += 1
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(wait_s)
            return None

    def _post(self, webhook: _Webhook, opener: urllib.request.OpenerDirector) -> int:
        """Post a webhook, signed at this moment if it is good; return the answer's status or 0."""
        raw = json.dumps(webhook.body).encode()
        timestamp = int(time.time()) - (_STALE_S if webhook.flaw is WebhookFlaw.STALE else 0)
        secret = self._options.webhook_secret
        if webhook.flaw is WebhookFlaw.BAD_SIGNATURE:
            secret = f"not {secret}"
        request = urllib.request.Request(  # noqa: S310 - the URL is the user's own
            self._options.webhook_url,
            data=raw,
            method="POST",
            headers={
                "Content-Type": "application/json",
                "User-Agent": "truncus-emulator",
                contract.TIMESTAMP_HEADER: str(timestamp),
                contract.SIGNATURE_HEADER: sign(raw, secret=secret, timestamp=timestamp),
            },
        )
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except (OSError, ValueError):
            return 0


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that asks no proxy of the environment on the way to a local receiver.

    It loads the machine's certificates, which takes 15 ms: only who sends webhooks makes one.
    """
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
