"""The webhook: Truncus reports here what became of emails, and who opened them."""

import logging
import time

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from truncus_django import telemetry
from truncus_django.api import contract
from truncus_django.api.errors import ConfigurationError, WebhookVerificationError
from truncus_django.api.webhooks import verify
from truncus_django.conf import get_settings
from truncus_django.log.ingest import IncomingEvent, ingest
from truncus_django.log.webhook_payload import read_event
from truncus_django.states import EVENT_WORDS
from truncus_django.telemetry import Webhook
from truncus_django.trouble_log import TroubleLog

logger = logging.getLogger("truncus_django")

MAX_BODY_BYTES = 256 * 1024
"""Of a webhook; the published ones have less than 1 KB."""

_trouble = TroubleLog()


@login_not_required  # of use with LoginRequiredMiddleware; needs no users otherwise
@csrf_exempt
@require_POST
@transaction.non_atomic_requests
def webhook(request: HttpRequest) -> HttpResponse:
    """Verify a webhook, store and apply its event, and acknowledge it with 200.

    Whatever is wrong with its signature, the answer is the same. A failure of our own is a 500, so
    that Truncus repeats the webhook.
    """
    with telemetry.receiving_webhook() as observed:
        return _receive(request, observed)


def _receive(request: HttpRequest, observed: Webhook | None) -> HttpResponse:
    try:
        if int(request.META.get("CONTENT_LENGTH", "")) > MAX_BODY_BYTES:
            if observed is not None:
                observed.fail("TooLarge")
            return _answer(413, "Too large.")
        # Not request.body: that goes by the limit for forms, which a project may have set lower.
        body = request.read(MAX_BODY_BYTES)
        signed_at = _verified_timestamp(request, body)
        incoming = read_event(body, signed_at=signed_at)
    except WebhookVerificationError as error:
        _note_failure(observed, error)
        logger.warning(
            "A webhook was refused: %s",
            error.message,
            extra={"truncus_event": "webhook_refused", "truncus_reason": error.message},
        )
        return _answer(403, "Refused.")
    except (ValueError, OSError) as error:  # no length, no such JSON, or its sender broke off
        _note_failure(observed, error)
        kind = type(error).__name__
        logger.warning(
            "A webhook could not be read: %s.",
            kind,
            extra={"truncus_event": "webhook_unreadable", "truncus_error": kind},
        )
        return _answer(400, "Unreadable.")
    except ConfigurationError as error:
        _note_failure(observed, error)
        return _try_again(error)
    try:
        new = ingest([incoming])
    except Exception as error:  # noqa: BLE001  whatever it is, Truncus must repeat it
        _note_failure(observed, error)
        return _try_again(error)
    if observed is not None:
        _note_event(observed, incoming, is_new=bool(new))
    _trouble.clear()
    return _answer(200, "OK")


def _note_failure(observed: Webhook | None, error: Exception) -> None:
    if observed is not None:
        observed.fail(error)


def _note_event(observed: Webhook, incoming: IncomingEvent, *, is_new: bool) -> None:
    # Of the words that there may be; a metric has a bounded number of labels.
    event = incoming.type if incoming.type in EVENT_WORDS else "other"
    observed.about(incoming.message_id, event)
    if is_new:
        observed.lagged(event, time.time() - incoming.occurred_at.timestamp())


def _verified_timestamp(request: HttpRequest, body: bytes) -> int:
    """Return when the webhook was signed (unix seconds), or raise what is wrong with it."""
    secrets = get_settings().webhook_secrets
    if not secrets:
        _report(
            "Webhooks arrive and are all refused: TRUNCUS has no WEBHOOK_SECRETS.",
            "webhooks_without_secret",
        )
        raise WebhookVerificationError("No secret is set.")
    timestamp = request.headers.get(contract.TIMESTAMP_HEADER, "")
    verify(
        body,
        signature=request.headers.get(contract.SIGNATURE_HEADER, ""),
        timestamp=timestamp,
        secrets=secrets,
        now=time.time(),
    )
    return int(timestamp)


def _try_again(error: Exception) -> HttpResponse:
    """Return an answer that makes Truncus repeat the webhook."""
    kind = type(error).__name__
    _report(
        f"A webhook could not be stored: {kind}. Truncus will repeat it.",
        "webhook_not_stored",
        truncus_error=kind,
    )
    return _answer(500, "Try again.")


def _is_not_about_webhooks(record: logging.LogRecord) -> bool:
    """Drop Django's own log record of each 500, which may be mailed to the admins.

    That mail goes by way of Truncus, which sends a webhook about it, which fails like the first
    one, and so on without end.
    """
    match = getattr(getattr(record, "request", None), "resolver_match", None)
    return (
        getattr(record, "status_code", None) != 500 or getattr(match, "func", None) is not webhook
    )


logging.getLogger("django.request").addFilter(_is_not_about_webhooks)


def _report(problem: str, event: str, **fields: str) -> None:
    """Log a problem once, until a webhook is stored again."""
    _trouble.error(
        problem,
        "%s Further ones are not logged.",
        problem,
        extra={"truncus_event": event, **fields},
    )


def _answer(status: int, text: str) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
