"""Signed webhooks to one URL, from one background thread, repeated until HTTP 200 comes back."""

import heapq
import itertools
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from truncus_django.api import contract
from truncus_django.api.webhooks import sign
from truncus_django.emulator.options import Options

_TIMEOUT_S = 5.0
_ATTEMPTS_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class WebhookAttempt:
    """One try to deliver one webhook."""

    body: Mapping[str, Any]
    status: int
    """The HTTP status of the receiver's answer; 0 when there was none."""
    number: int
    """1 for the first try."""


@dataclass(frozen=True, slots=True)
class _Webhook:
    body: Mapping[str, Any]
    tries: int


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is not HTTP 200, so it acknowledges nothing and is not followed."""

    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        """Follow nothing."""


class WebhookSender:
    """A queue of webhooks and the thread that works it off. Safe to use from any thread."""

    def __init__(self, options: Options) -> None:
        """Begin with nothing to send; the thread starts with the first webhook."""
        self._options = options
        self._random = random.Random(options.seed)  # noqa: S311 - repeatable on purpose
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, _Webhook]] = []
        self._busy = False
        self._stopped = False
        self._thread: threading.Thread | None = None
        self.attempts: deque[WebhookAttempt] = deque(maxlen=_ATTEMPTS_KEPT)
        # No proxy of the environment comes between the emulator and a local receiver.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())

    def dispatch(self, body: Mapping[str, Any]) -> None:
        """Send a webhook soon, and again as often as the options say."""
        with self._changed:
            if self._stopped:
                return
            for _ in range(1 + self._options.webhook_duplicates):
                late_s = self._random.uniform(0, self._options.webhook_shuffle_s)
                self._put(_Webhook(body, 0), self._options.webhook_delay_s + late_s)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="truncus-emulator-webhooks", daemon=True
                )
                self._thread.start()

    def is_idle(self) -> bool:
        """Return whether nothing waits to be sent or repeated."""
        with self._changed:
            return not self._waiting and not self._busy

    def stop(self) -> None:
        """Drop what waits and end the thread."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=_TIMEOUT_S + 1)

    def _put(self, webhook: _Webhook, late_s: float) -> None:
        due = time.monotonic() + late_s
        heapq.heappush(self._waiting, (due, next(self._numbers), webhook))
        self._changed.notify_all()

    def _work(self) -> None:
        while (webhook := self._next()) is not None:
            status = self._post(webhook.body)
            with self._changed:
                tries = webhook.tries + 1
                self.attempts.append(WebhookAttempt(webhook.body, status, tries))
                backoff_s = self._options.webhook_backoff_s
                if status != 200 and tries <= len(backoff_s) and not self._stopped:
                    self._put(_Webhook(webhook.body, tries), backoff_s[tries - 1])
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> _Webhook | None:
        """Wait for a webhook that is due; None when the sender was stopped."""
        with self._changed:
            while not self._stopped:
                wait_s = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait_s is not None and wait_s <= 0:
                    self._busy = True
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(wait_s)
            return None

    def _post(self, body: Mapping[str, Any]) -> int:
        """Post a webhook, signed at this moment; return the answer's status or 0."""
        raw = json.dumps(body).encode()
        timestamp = int(time.time())
        request = urllib.request.Request(  # noqa: S310 - the URL is the user's own
            self._options.webhook_url,
            data=raw,
            method="POST",
            headers={
                "Content-Type": "application/json",
                "User-Agent": "truncus-emulator",
                contract.TIMESTAMP_HEADER: str(timestamp),
                contract.SIGNATURE_HEADER: sign(
                    raw, secret=self._options.webhook_secret, timestamp=timestamp
                ),
            },
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except (OSError, ValueError):
            return 0
