"""The JSON of every successful answer, in both dialects. Pure functions."""

from collections.abc import Iterable, Mapping
from typing import Any

from truncus_django.api import contract
from truncus_django.emulator.idempotency import FirstAnswer
from truncus_django.emulator.mailbox import Event, StoredEmail, iso
from truncus_django.emulator.options import SpokenDialect

_BATCH_ITEM_FIELDS = (
    "status",
    "message_id",
    "provider_message_id",
    "global_message_id",
    "reason",
    "error",
    "code",
)
_SENT_STATUSES = {contract.SENT, contract.DELIVERED, contract.BOUNCED, contract.SANDBOX}
_QUEUED_STATUSES = {contract.QUEUED, contract.SCHEDULED}
_BLOCKED_STATUSES = {contract.BLOCKED, contract.REJECTED}


def send_answer(email: StoredEmail, dialect: str) -> dict[str, Any]:
    """Return what a send answers about an email that was just taken."""
    if dialect == SpokenDialect.MANUAL and email.status not in _QUEUED_STATUSES:
        return _manual_send_answer(email)
    ids = {"message_id": email.id, "global_message_id": email.global_message_id}
    if email.status == contract.BLOCKED:
        return {
            "status": contract.BLOCKED,
            "reason": email.reason,
            "code": contract.SUPPRESSED_CODE,
            "message_id": email.id,
            "suppressed_addresses": list(email.suppressed),
        }
    if email.status == contract.SCHEDULED:
        return {"status": contract.SCHEDULED, **ids, "send_at": iso(email.draft.send_at or 0)}
    if email.status == contract.QUEUED:
        return {
            "status": contract.QUEUED,
            **ids,
            "retry_scheduled": True,
            "retry_at": iso(email.retry_at or 0),
            "queued_for_retry": True,
        }
    answer = {"status": contract.SENT, **ids, "provider_message_id": email.provider_message_id}
    if email.submission.sandbox:
        return {**answer, "sandbox": True}
    answer["provider"] = "ses"
    if email.warnings:
        return {**answer, "warnings": list(email.warnings)}
    return answer


def _manual_send_answer(email: StoredEmail) -> dict[str, Any]:
    if email.submission.sandbox and email.status == contract.SENT:
        return {
            "status": contract.SANDBOX,
            "message_id": email.id,
            "provider_message_id": email.provider_message_id,
        }
    answer = {"status": email.status, "message_id": email.id}
    return {**answer, "reason": email.reason} if email.reason else answer


def duplicate_answer(email: StoredEmail) -> dict[str, Any]:
    """Return what the SDK's API answers to a key that was used before."""
    return {
        "status": contract.DUPLICATE,
        "message_id": email.id,
        "email_status": email.status,
        "created_at": iso(email.created_at),
    }


def duplicate_content_answer(original: StoredEmail) -> dict[str, Any]:
    """Return what the SDK's API answers to content that was sent within the dedup window."""
    return {
        "status": contract.DUPLICATE,
        "message": "Duplicate email detected within dedup window",
        "original_global_message_id": original.global_message_id,
    }


def duplicate_batch_answer(first: FirstAnswer) -> dict[str, Any]:
    """Return one ``duplicate`` for a whole batch, the second reading of what is not published."""
    return {
        "status": contract.DUPLICATE,
        "message": "This batch was already processed",
        "email_status": contract.SENT,
        "created_at": iso(first.at),
    }


def batch_item(index: int, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return one result of a batch from what a send would have answered."""
    fields = {name: answer[name] for name in _BATCH_ITEM_FIELDS if name in answer}
    return {"index": index, **fields}


def batch_answer(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a batch's answer: the counts and the results. A duplicate counts nowhere."""
    statuses = [result["status"] for result in results]
    return {
        "total": len(results),
        "sent": sum(status in _SENT_STATUSES for status in statuses),
        "queued": sum(status in _QUEUED_STATUSES for status in statuses),
        "blocked": sum(status in _BLOCKED_STATUSES for status in statuses),
        "failed": statuses.count(contract.FAILED),
        "results": results,
    }


def email_answer(email: StoredEmail, dialect: str, *, bounce_rate: float) -> dict[str, Any]:
    """Return an email as it is read back."""
    sandboxed = (
        email.submission.sandbox
        and email.status == contract.SENT
        and dialect == SpokenDialect.MANUAL
    )
    answer = {
        "id": email.id,
        "global_message_id": email.global_message_id,
        "to": email.draft.to[0] if len(email.draft.to) == 1 else list(email.draft.to),
        "cc": list(email.draft.cc),
        "bcc": list(email.draft.bcc),
        "subject": email.draft.subject,
        "domain": email.draft.domain,
        "template": email.draft.template_id or None,
        "status": contract.SANDBOX if sandboxed else email.status,
        "provider": "ses",
        "sandbox": email.submission.sandbox,
        "provider_message_id": email.provider_message_id or None,
        "scheduled_at": None if email.draft.send_at is None else iso(email.draft.send_at),
        "retry_count": email.retry_count,
        "retry_at": None if email.retry_at is None else iso(email.retry_at),
        "metadata": dict(email.draft.metadata),
        "created_at": iso(email.created_at),
        "updated_at": iso(email.updated_at),
    }
    if dialect == SpokenDialect.MANUAL:
        return answer | _engagement_counts(email.events)
    return answer | {
        "intelligence": _intelligence(email, bounce_rate),
        "lifecycle": _lifecycle(email.events),
        "latency": _latency(email),
        "events": [
            {
                "id": event.id,
                "type": event.type,
                "payload": dict(event.payload),
                "created_at": iso(event.at),
            }
            for event in email.events
        ],
    }


def _engagement_counts(events: Iterable[Event]) -> dict[str, Any]:
    opened = [event.at for event in events if event.type == "opened"]
    clicked = [event for event in events if event.type == "clicked"]
    return {
        "open_count": len(opened),
        "opened_at": iso(min(opened)) if opened else None,
        "click_count": len(clicked),
    }


def _lifecycle(events: Iterable[Event]) -> list[dict[str, Any]]:
    lifecycle = []
    for event in events:
        entry: dict[str, Any] = {
            "event": event.type,
            "timestamp": iso(event.at),
            "provider": "ses",
        }
        if event.payload:
            entry["data"] = dict(event.payload)
        lifecycle.append(entry)
    return lifecycle


def _latency(email: StoredEmail) -> dict[str, int | None]:
    def between(start: float | None, end: float | None) -> int | None:
        return None if start is None or end is None else round((end - start) * 1000)

    return {
        "total_ms": between(email.created_at, email.delivered_at),
        "provider_accept_ms": between(email.created_at, email.provider_accepted_at),
        "delivery_ms": between(email.provider_accepted_at, email.delivered_at),
    }


_EXPLANATIONS = {
    contract.DELIVERED: "Delivered.",
    contract.SENT: "Handed to the mail provider.",
    contract.QUEUED: "Deferred; it will be tried again.",
    contract.SCHEDULED: "Waits for its time.",
    contract.CANCELLED: "Cancelled before it was sent.",
}


def _intelligence(email: StoredEmail, bounce_rate: float) -> dict[str, Any]:
    category, action = None, "none"
    if email.status == contract.BOUNCED:
        permanent = email.reason in {"mailbox_does_not_exist", "no_mx_record"}
        category = "hard_bounce" if permanent else "soft_bounce"
        action = "remove_recipient" if permanent else "retry_later"
    elif email.status == "complained":
        category, action = "complaint", "remove_recipient"
    elif email.status in _BLOCKED_STATUSES:
        category, action = "suppressed", "remove_recipient"
    return {
        "failure_reason": email.reason or None,
        "failure_category": category,
        "is_retryable": category == "soft_bounce",
        "recommended_action": action,
        "explanation": _EXPLANATIONS.get(email.status, email.reason),
        "similar_failures": 0,
        "account_bounce_rate": round(bounce_rate, 4),
    }


def events_answer(email: StoredEmail, *, since: float) -> dict[str, Any]:
    """Return an email's events, without those before ``since`` (unix seconds)."""
    return {
        "events": [
            {
                "event_id": event.id,
                "message_id": email.id,
                "status": event.type,
                "timestamp": int(event.at),
            }
            for event in email.events
            if event.at >= since
        ]
    }


def replayed_answer(email: StoredEmail, event: Event, *, dispatched_at: float) -> dict[str, Any]:
    """Return what a replay answers; of a whole message, ``event`` is its last one."""
    return {
        "replayed": True,
        "event_id": event.id,
        "message_id": email.id,
        "dispatched_at": iso(dispatched_at),
    }


def webhook_body(email: StoredEmail, event: Event, *, with_id: bool) -> dict[str, Any]:
    """Return the JSON of the webhook that tells of ``event``."""
    body: dict[str, Any] = {
        "event": WEBHOOK_EVENTS.get(event.type, contract.WEBHOOK_EVENT),
        "message_id": email.id,
        "status": event.type,
    }
    if event.payload.get("reason"):
        body["reason"] = event.payload["reason"]
    if with_id:
        body["event_id"] = event.id
    return {**body, "timestamp": int(event.at)}


def makes_webhook(event: Event) -> bool:
    """Return whether Truncus tells of ``event`` by itself, and not only when it is replayed."""
    return event.type not in {"queued", contract.SENT, contract.CANCELLED}


WEBHOOK_EVENTS = {
    "complained": "email.complaint",
    "opened": "email.open",
    "clicked": "email.click",
}
"""The name of the webhook about an event; of all others it is `contract.WEBHOOK_EVENT`."""
