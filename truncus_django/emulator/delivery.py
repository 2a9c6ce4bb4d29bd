"""Simulated delivery: what happens to an email after it was accepted, and when.

Steps wait in one heap ordered by time and are taken by one thread, so that 100,000 emails cost
no more than their entries. All of it runs under the service's lock.
"""

import heapq
import itertools
import secrets
import threading
from collections.abc import Callable
from enum import Enum, auto

from truncus_django.api import contract
from truncus_django.emulator.account import Account
from truncus_django.emulator.mailbox import Event, Mailbox, StoredEmail
from truncus_django.emulator.options import Options, SpokenDialect
from truncus_django.emulator.simulation import Scenario, bounce_reason, scenario_of_all

_LONGEST_WAIT_S = 0.25
"""How late a step can be when an injected clock jumps while nobody asks for anything."""


class _Step(Enum):
    HAND_OVER = auto()
    ARRIVE = auto()
    COMPLAIN = auto()
    OPEN = auto()
    CLICK = auto()


class Delivery:
    """The steps to come, and what each does to its email."""

    def __init__(
        self,
        options: Options,
        *,
        mailbox: Mailbox,
        account: Account,
        announce: Callable[[StoredEmail, Event], None],
    ) -> None:
        """Begin with no steps; ``announce`` is told of each event that makes a webhook."""
        self._options = options
        self._mailbox = mailbox
        self._account = account
        self._announce = announce
        self._numbers = itertools.count()
        self._steps: list[tuple[float, int, _Step, StoredEmail]] = []
        self._actions = {
            _Step.HAND_OVER: self._hand_over,
            _Step.ARRIVE: self._arrive,
            _Step.COMPLAIN: self._complain,
            _Step.OPEN: self._open,
            _Step.CLICK: self._click,
        }

    @property
    def next_at(self) -> float | None:
        """When the next step is due, in unix seconds; None when there is none."""
        return self._steps[0][0] if self._steps else None

    def accept(self, email: StoredEmail, *, now: float) -> None:
        """Give a new email its first state, and plan what follows from it."""
        self._mailbox.log(email, "queued", at=now, payload={"to": email.draft.to[0]})
        if email.submission.sandbox:
            email.status = contract.SENT
            email.provider_message_id = f"sandbox-{secrets.token_hex(8)}"
            email.provider_accepted_at = now
            self._mailbox.log(email, "sent", at=now, payload={"sandbox": True})
        elif email.draft.send_at is not None:
            email.status = contract.SCHEDULED
            self._plan(_Step.HAND_OVER, email, at=email.draft.send_at)
        else:
            self._hand_over(email, now)

    def block(self, email: StoredEmail, *, now: float) -> None:
        """Record that an email was refused because of suppressed recipients."""
        event = self._mailbox.log(email, email.status, at=now, payload={"reason": email.reason})
        self._announce(email, event)

    def run_due(self, now: float) -> bool:
        """Take every step that is due; return whether there was one."""
        took_one = False
        while self._steps and self._steps[0][0] <= now:
            at, _, step, email = heapq.heappop(self._steps)
            self._actions[step](email, at)
            took_one = True
        return took_one

    def _plan(self, step: _Step, email: StoredEmail, *, at: float) -> None:
        heapq.heappush(self._steps, (at, next(self._numbers), step, email))

    def _hand_over(self, email: StoredEmail, at: float) -> None:
        """Give an email to the mail provider, which may defer it once."""
        if email.status == contract.CANCELLED:
            return
        if scenario_of_all(email.draft.to) is Scenario.DEFERRED and not email.retry_count:
            email.status = contract.QUEUED
            email.retry_count = 1
            email.retry_at = at + self._options.retry_delay_s
            self._plan(_Step.HAND_OVER, email, at=email.retry_at)
            return
        email.status = contract.SENT
        email.provider_message_id = f"ses-{secrets.token_hex(12)}"
        email.provider_accepted_at = at
        self._mailbox.log(email, "sent", at=at, payload={"provider": "ses"})
        if self._options.dialect == SpokenDialect.MANUAL:
            self._arrive(email, at)  # the manual's answers are terminal
        else:
            self._plan(_Step.ARRIVE, email, at=at + self._options.delivery_delay_s)

    def _arrive(self, email: StoredEmail, at: float) -> None:
        """Let the recipient's server take or bounce an email."""
        scenario = scenario_of_all(email.draft.to)
        delay_s = self._options.delivery_delay_s
        if scenario is Scenario.BOUNCE:
            email.status = contract.BOUNCED
            email.reason = bounce_reason(email.draft.to)
            self._record(email, "bounced", at, reason=email.reason)
            self._suppress_if_asked(email)
            return
        email.status = contract.DELIVERED
        email.delivered_at = at
        self._record(email, "delivered", at)
        if scenario is Scenario.COMPLAINT:
            self._plan(_Step.COMPLAIN, email, at=at + delay_s)
        if scenario in {Scenario.OPEN, Scenario.CLICK} and email.draft.track_opens:
            self._plan(_Step.OPEN, email, at=at + delay_s)
        if scenario is Scenario.CLICK and email.draft.track_clicks:
            self._plan(_Step.CLICK, email, at=at + 2 * delay_s)

    def _complain(self, email: StoredEmail, at: float) -> None:
        email.status = "complained"
        email.reason = "abuse"
        self._record(email, "complained", at, reason=email.reason)
        self._suppress_if_asked(email)

    def _open(self, email: StoredEmail, at: float) -> None:
        self._record(email, "opened", at)

    def _click(self, email: StoredEmail, at: float) -> None:
        self._record(email, "clicked", at)

    def _record(self, email: StoredEmail, kind: str, at: float, **payload: str) -> None:
        self._announce(email, self._mailbox.log(email, kind, at=at, payload=payload))

    def _suppress_if_asked(self, email: StoredEmail) -> None:
        if self._options.suppress_after_bounce:
            for address in email.draft.to:
                self._account.suppress(address, email.draft.tenant_id)


class DeliveryThread(threading.Thread):
    """Takes the steps when they are due."""

    def __init__(
        self, *, changed: threading.Condition, run_due: Callable[[], float | None]
    ) -> None:
        """Prepare to call ``run_due``, which returns the seconds until the next step, or None.

        ``changed`` wakes the thread when there may be an earlier step.
        """
        super().__init__(name="truncus-emulator-delivery", daemon=True)
        self._changed = changed
        self._run_due = run_due
        self._stopped = False

    def run(self) -> None:
        """Work until stopped."""
        with self._changed:
            while not self._stopped:
                wait_s = self._run_due()
                self._changed.wait(None if wait_s is None else min(wait_s, _LONGEST_WAIT_S))

    def stop(self) -> None:
        """End the thread and wait for its end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self.join()
