"""Direct sends: messages that Truncus certainly did not take go to the fallback mailer."""

import copy
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import OutcomeUnknown, TruncusError, log_summary
from truncus_django.api.keys import new_idempotency_key
from truncus_django.awaited_send import after_answer, current_awaited_send
from truncus_django.sending.ambiguous import forget, remember
from truncus_django.sending.fallback import (
    FallbackMailer,
    HandedOver,
    HandoverFailure,
    note_fallback,
    reason_of,
)
from truncus_django.sending.outgoing import Batch, OutgoingMessage, SendOutcome, Sent
from truncus_django.sending.payload import Payload
from truncus_django.sending.rebuilt import why_only_truncus


def why_not_handed_over(outgoing: OutgoingMessage, *, now: float) -> str | None:
    """Return why a message cannot go to a fallback mailer, or ``None``.

    Args:
        now: unix seconds.
    """
    payload = outgoing.payload
    if payload is None:
        return "it has no payload"
    if outgoing.ambiguous_send is not None:
        # Also where it only met a failure of the service: that does not say for certain.
        return "Truncus may have taken it earlier"
    if payload.idempotency_key is not None:
        # An earlier send under it may have been accepted, and a later one must find this one.
        return "only Truncus knows its idempotency key"
    if payload.is_sandbox:
        return "it is for the sandbox"
    return why_only_truncus(payload.email, now=datetime.fromtimestamp(now, UTC))


def hand_over_failed(
    sent_batches: Iterable[Sequence[Sent]],
    fallback: FallbackMailer,
    client: TruncusClient,
    *,
    now: float,
) -> Generator[Sequence[Sent]]:
    """Yield what became of messages, after the fallback mailer had those that it may have.

    Where a time limit or Ctrl-C breaks into that, what is known is yielded before it is raised.

    Args:
        sent_batches: what became of them at Truncus.
        now: unix seconds.
    """
    handover = _Handover(fallback, client, now)
    for sent in sent_batches:
        done: list[Sent] = []
        # Its server may end a connection that waits while Truncus is asked about the next batch,
        # and what is sent over it then may have been sent or not.
        with fallback:
            for index, (outgoing, outcome) in enumerate(sent):
                try:
                    done.append((outgoing, handover.outcome(outgoing, outcome)))
                except BaseException:
                    if handover.is_under_way:
                        outcome = handover.unknown(outcome, "was interrupted")
                    yield [*done, (outgoing, outcome), *sent[index + 1 :]]
                    raise
        handover.log(sent, done)
        yield done


@dataclass(slots=True)
class _Handover:
    """Hands messages of one call over.

    Attributes:
        failure: why the fallback mailer is of no use to any further email.
        is_under_way: whether it may be sending an email at this moment.
        key: under which the latest handover is noted on its message.
    """

    fallback: FallbackMailer
    client: TruncusClient
    now: float
    failure: HandoverFailure | None = None
    is_under_way: bool = False
    key: str = ""

    def outcome(self, outgoing: OutgoingMessage, outcome: SendOutcome) -> SendOutcome:
        """Return what became of a message, after it was handed over if it may be."""
        error, payload = outcome.error, outgoing.payload
        if error is None or payload is None or not error.allows_fallback:
            return outcome
        why_not = why_not_handed_over(outgoing, now=self.now)
        if why_not is not None:
            return _not_sent(outcome, error, f"No fallback mailer can send it: {why_not}")
        if self.failure is None:
            return self._handed_over(outgoing, payload, outcome, error)
        return _not_sent(outcome, error, self._told(self.failure))

    def unknown(self, outcome: SendOutcome, what: str) -> SendOutcome:
        """Return the outcome of a message that the fallback mailer may have sent."""
        why = "" if outcome.error is None else f" ({log_summary(outcome.error)})"
        error = OutcomeUnknown(
            f"Truncus did not take the email{why}, and the fallback mailer {self.fallback.name!r} "
            f"{what}: it may have sent the email. Find out there before you send it again."
        )
        return outcome._replace(
            result=None,
            error=error,
            refused_by=outcome.error,
            idempotency_key=self.key,
            sent_by=self.fallback.name,
        )

    def log(self, before: Sequence[Sent], after: Sequence[Sent]) -> None:
        """Log how many of a batch the fallback mailer sent."""
        errors = [
            old.error
            for (_, old), (_, new) in zip(before, after, strict=True)
            if new.sent_by and new.error is None and old.error is not None
        ]
        if errors:
            note_fallback(self.fallback.name, len(errors), errors[0])

    def _handed_over(
        self,
        outgoing: OutgoingMessage,
        payload: Payload,
        outcome: SendOutcome,
        error: TruncusError,
    ) -> SendOutcome:
        awaited = current_awaited_send()
        if awaited is not None:
            awaited.stop_if_cancelled()
        key = self.key = outcome.idempotency_key or new_idempotency_key()
        remember(
            Batch(key, [outgoing]),
            self.client,
            now=self.now,
            is_ambiguous=True,
            wire_format=self.client.wire_format,
            is_handed_over=True,
        )
        self.is_under_way = True
        answer = self.fallback.send(payload.email)
        self.is_under_way = False
        if isinstance(answer, HandedOver):
            # Whoever is cancelled learns no answer, and may send the message again.
            after_answer(partial(forget, outgoing, key))
            name, why = self.fallback.name, log_summary(error)
            reason = reason_of(name, why)
            return outcome._replace(
                result=None,
                error=None,
                refused_by=error,
                idempotency_key=key,
                sent_by=name,
                reason=reason,
                left_out=answer.left_out,
            )
        if answer.is_ambiguous:
            return self.unknown(outcome, answer.text)
        forget(outgoing, key, on_original=True)
        if answer.refusal is not None:
            return outcome._replace(result=None, error=answer.refusal, refused_by=error)
        if not answer.is_about_email:
            self.failure = answer
        return _not_sent(outcome, error, self._told(answer))

    def _told(self, failure: HandoverFailure) -> str:
        return f"The fallback mailer {self.fallback.name!r} {failure.text}"


def _not_sent(outcome: SendOutcome, error: TruncusError, note: str) -> SendOutcome:
    """Return the outcome with what kept the fallback mailer from sending, too."""
    noted = copy.copy(error)
    noted.message = f"{error.message.rstrip('.')}. {note.rstrip('.')}"
    return outcome._replace(error=noted)
