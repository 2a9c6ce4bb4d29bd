"""Truncus without HTTP: each endpoint as a method, under one lock."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from truncus_django.api import contract
from truncus_django.emulator import answers
from truncus_django.emulator.account import Account
from truncus_django.emulator.deliverability import validation_answer
from truncus_django.emulator.delivery import Delivery
from truncus_django.emulator.faults import Faults
from truncus_django.emulator.idempotency import FirstAnswer, IdempotencyStore
from truncus_django.emulator.limits import Quotas, RequestLimits
from truncus_django.emulator.mailbox import Event, Mailbox, StoredEmail, Submission
from truncus_django.emulator.options import BatchRefusal, BatchReplay, Options, SpokenDialect
from truncus_django.emulator.refusals import Refusal, invalid, not_found
from truncus_django.emulator.validation import Draft, check_email
from truncus_django.emulator.webhook_sender import WebhookSender

_DAY_S = 24 * 60 * 60


@dataclass(frozen=True)
class Answer:
    """What goes back to the client."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


class Service:
    """The state of one emulated Truncus and the endpoints that work on it.

    Every method may be called from any thread.
    """

    def __init__(self, options: Options, *, clock: Callable[[], float]) -> None:
        """Begin empty. ``clock`` returns unix seconds."""
        self.options = options
        self.clock = clock
        self.changed = threading.Condition(threading.RLock())
        """The lock of all state, notified of every change."""
        self.faults = Faults(options.fault_rates, seed=options.seed)
        self.account = Account(options)
        self.limits = RequestLimits(options)
        self.quotas = Quotas(options)
        self.webhooks = WebhookSender(options)
        manual = options.dialect == SpokenDialect.MANUAL
        self.mailbox = Mailbox(keep=options.keep, id_prefix="msg_" if manual else "em_")
        self.delivery = Delivery(
            options, mailbox=self.mailbox, account=self.account, announce=self._announce
        )
        self._first_answers = IdempotencyStore()
        self._recent_contents: dict[str, StoredEmail] = {}
        self._bounced = 0

    def send(self, payload: object, submission: Submission) -> Answer:
        """Take one email.

        Raises:
            Refusal: it was not taken.
        """
        with self.changed:
            now = self._catch_up()
            key = submission.idempotency_key
            if self.options.dialect == SpokenDialect.SDK:
                _require_key(key)
            first = self._find_first(submission, contract.SEND_PATH, now)
            if first is not None:
                return self._ok(submission, self._replayed(first), now)
            email, body = self._take(payload, submission, now, batch_index=None)
            if key:
                first = FirstAnswer(body, email.id if email else "", now)
                self._first_answers.remember(submission.api_key, contract.SEND_PATH, key, first)
            return self._ok(submission, body, now)

    def batch(self, payload: object, submission: Submission) -> Answer:
        """Take up to 100 emails, each for itself.

        Raises:
            Refusal: none was taken.
        """
        with self.changed:
            now = self._catch_up()
            _require_key(submission.idempotency_key)
            first = self._find_first(submission, contract.BATCH_PATH, now)
            if first is not None:
                again = self.options.batch_replay == BatchReplay.FIRST
                body = first.body if again else answers.duplicate_batch_answer(first)
                return self._ok(submission, body, now)
            emails = _batch_emails(payload)
            if self.options.batch_refusal == BatchRefusal.WHOLE:
                self._refuse_if_any_is_invalid(emails, now)
            results = [
                self._take_item(index, email, submission, now) for index, email in enumerate(emails)
            ]
            body = answers.batch_answer(results)
            self._first_answers.remember(
                submission.api_key,
                contract.BATCH_PATH,
                submission.idempotency_key,
                FirstAnswer(body, "", now),
            )
            return self._ok(submission, body, now)

    def validate(self, payload: object) -> Answer:
        """Rate an email without taking it.

        Raises:
            Refusal: ``to``, ``from`` or ``subject`` is missing or no string.
        """
        with self.changed:
            self._catch_up()
            return Answer(200, validation_answer(payload, self.account))

    def email(self, message_id: str, api_key: str) -> Answer:
        """Return an email as it stands, and the quota of who asks.

        Raises:
            Refusal: 404, there is none with this id.
        """
        with self.changed:
            now = self._catch_up()
            email = self._get(message_id)
            bounce_rate = self._bounced / max(1, self.mailbox.accepted)
            body = answers.email_answer(email, self.options.dialect, bounce_rate=bounce_rate)
            return Answer(200, body, self.quotas.headers(api_key, now=now))

    def cancel(self, message_id: str) -> Answer:
        """Cancel a scheduled email.

        Raises:
            Refusal: 404 without such an email, 409 when it is not scheduled.
        """
        with self.changed:
            now = self._catch_up()
            email = self._get(message_id)
            if email.status != contract.SCHEDULED:
                codes = ("not_scheduled", "NOT_SCHEDULED")
                raise Refusal(409, codes, "Only scheduled emails can be cancelled")
            email.status = contract.CANCELLED
            self.mailbox.log(email, "cancelled", at=now)
            self.changed.notify_all()
            return Answer(200, {"id": email.id, "status": contract.CANCELLED})

    def events(self, message_id: str) -> Answer:
        """Return the events of an email of the last 90 days.

        Raises:
            Refusal: 400 without an id, 404 without such an email.
        """
        with self.changed:
            now = self._catch_up()
            if not message_id:
                raise invalid("message_id is required")
            since = now - contract.EVENTS_KEPT_DAYS * _DAY_S
            return Answer(200, answers.events_answer(self._get(message_id), since=since))

    def replay_event(self, event_id: str) -> Answer:
        """Send the webhook of one event again.

        Raises:
            Refusal: 404 without such an event.
        """
        with self.changed:
            now = self._catch_up()
            found = self.mailbox.find_event(event_id)
            if found is None:
                raise not_found("Event")
            self._dispatch(*found)
            return _replayed_answer(*found, now)

    def replay_message(self, message_id: str) -> Answer:
        """Send all webhooks of an email again; the email itself is not sent.

        Raises:
            Refusal: 404 without such an email.
        """
        with self.changed:
            now = self._catch_up()
            email = self._get(message_id)
            for event in filter(answers.makes_webhook, email.events):
                self._dispatch(email, event)
            return _replayed_answer(email, email.events[-1], now)

    def count_request(self, api_key: str) -> None:
        """Count a request against its key's limits.

        Raises:
            Refusal: 429, the limit is reached.
        """
        with self.changed:
            self.limits.count(api_key, now=self.clock())

    def run_due(self) -> float | None:
        """Take the steps of delivery that are due; return seconds until the next, or None."""
        with self.changed:
            now = self._catch_up()
            next_at = self.delivery.next_at
            return None if next_at is None else max(0.0, next_at - now)

    def _catch_up(self) -> float:
        """Take what is due and return the present, in unix seconds."""
        now = self.clock()
        if self.delivery.run_due(now):
            self.changed.notify_all()
        return now

    def _find_first(self, submission: Submission, path: str, now: float) -> FirstAnswer | None:
        key = submission.idempotency_key
        if not key:
            return None
        return self._first_answers.find(submission.api_key, path, key, now=now)

    def _replayed(self, first: FirstAnswer) -> dict[str, Any]:
        email = self.mailbox.get(first.message_id)
        if self.options.dialect == SpokenDialect.MANUAL or email is None:
            return first.body
        return answers.duplicate_answer(email)

    def _ok(self, submission: Submission, body: dict[str, Any], now: float) -> Answer:
        return Answer(200, body, self.quotas.headers(submission.api_key, now=now))

    def _take(
        self, payload: object, submission: Submission, now: float, *, batch_index: int | None
    ) -> tuple[StoredEmail | None, dict[str, Any]]:
        """Check, store and hand over one email; return it and the answer about it.

        No email comes back where the same content was sent a moment ago.
        """
        draft = check_email(payload, dialect=self.options.dialect, now=now)
        self.account.check_domain(draft.domain)
        html = draft.html
        if draft.template_id:
            html = self.account.render(draft.template_id, draft.variables)
        email = StoredEmail(
            draft, submission, created_at=now, updated_at=now, html=html, batch_index=batch_index
        )
        original = self._sent_a_moment_ago(draft, now)
        blocked = self._apply_suppression(email)
        if not blocked and original is not None:
            return None, answers.duplicate_content_answer(original)
        if not blocked:
            self.quotas.check(submission.api_key, draft.domain, now=now)
        self.mailbox.add(email)
        if blocked:
            self.delivery.block(email, now=now)
        else:
            self.delivery.accept(email, now=now)
            if not email.submission.sandbox:
                self.quotas.count(submission.api_key, draft.domain, now=now)
            if self.options.dedup_window_s:
                self._recent_contents[draft.content_digest()] = email
        self.changed.notify_all()
        return email, answers.send_answer(email, self.options.dialect)

    def _take_item(
        self, index: int, payload: object, submission: Submission, now: float
    ) -> dict[str, Any]:
        try:
            _, answer = self._take(payload, submission, now, batch_index=index)
        except Refusal as refusal:
            return refusal.batch_item(index, self.options.dialect)
        return answers.batch_item(index, answer)

    def _refuse_if_any_is_invalid(self, emails: list[object], now: float) -> None:
        for index, payload in enumerate(emails):
            try:
                draft = check_email(payload, dialect=self.options.dialect, now=now)
                self.account.check_domain(draft.domain)
            except Refusal as refusal:
                message = f"emails[{index}]: {refusal.message}"
                raise Refusal(400, refusal.codes, message) from None

    def _apply_suppression(self, email: StoredEmail) -> bool:
        """Leave suppressed recipients out; return whether nobody, or not the primary one, is left.

        The SDK's API blocks when its one ``to`` is suppressed; the manual's ``to`` may be many.
        """
        recipients = (*email.draft.to, *email.draft.cc, *email.draft.bcc)
        suppressed = self.account.suppressed_among(recipients, email.draft.tenant_id)
        if not suppressed:
            return False
        email.suppressed = tuple(suppressed)
        if not set(email.draft.to) <= set(suppressed):
            left_out = ", ".join(suppressed)
            email.warnings = (f"Suppressed recipients were left out: {left_out}",)
            return False
        if self.options.dialect == SpokenDialect.MANUAL:
            email.status, email.reason = contract.REJECTED, "suppression_list"
        else:
            nobody_left = set(recipients) <= set(suppressed)
            who = "All recipients are" if nobody_left else "Primary recipient is"
            email.status, email.reason = contract.BLOCKED, f"{who} suppressed"
        return True

    def _sent_a_moment_ago(self, draft: Draft, now: float) -> StoredEmail | None:
        window_s = self.options.dedup_window_s
        if not window_s or self.options.dialect != SpokenDialect.SDK:
            return None
        original = self._recent_contents.get(draft.content_digest())
        return original if original and now - original.created_at < window_s else None

    def _get(self, message_id: str) -> StoredEmail:
        email = self.mailbox.get(message_id)
        if email is None:
            raise not_found("Email")
        return email

    def _announce(self, email: StoredEmail, event: Event) -> None:
        if event.type == "bounced":
            self._bounced += 1
        self._dispatch(email, event)

    def _dispatch(self, email: StoredEmail, event: Event) -> None:
        if self.options.webhook_url:
            with_id = self.options.webhook_event_ids
            self.webhooks.dispatch(answers.webhook_body(email, event, with_id=with_id))


def _replayed_answer(email: StoredEmail, event: Event, now: float) -> Answer:
    body = answers.replayed_answer(email, event, dispatched_at=now)
    return Answer(200, body)


def _require_key(key: str) -> None:
    if not key:
        codes = ("invalid_payload", "MISSING_IDEMPOTENCY_KEY")
        raise Refusal(400, codes, "Idempotency-Key header is required")


def _batch_emails(payload: object) -> list[object]:
    emails = payload.get("emails") if isinstance(payload, dict) else None
    if not isinstance(emails, list):
        raise invalid("emails must be an array")
    if not 1 <= len(emails) <= contract.MAX_BATCH_SIZE:
        raise invalid(f"emails must hold 1 to {contract.MAX_BATCH_SIZE} emails")
    return emails
