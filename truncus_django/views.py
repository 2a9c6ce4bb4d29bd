"""The webhook, where Truncus reports what became of emails; the page to unsubscribe; the health."""

import logging
import time
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.db import Error, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from truncus_django import telemetry
from truncus_django.api import contract
from truncus_django.api.errors import ConfigurationError, WebhookVerificationError
from truncus_django.api.webhooks import verify
from truncus_django.conf import get_settings
from truncus_django.log.ingest import IncomingEvent, ingest
from truncus_django.log.suppression import unsubscribe_address
from truncus_django.log.webhook_payload import read_event
from truncus_django.outbox.health import health as outbox_health
from truncus_django.states import EVENT_WORDS
from truncus_django.telemetry import Webhook
from truncus_django.trouble_log import TroubleLog
from truncus_django.unsubscribe import read_token

logger = logging.getLogger("truncus_django")

MAX_BODY_BYTES = 256 * 1024
"""Of a webhook; the published ones have less than 1 KB."""

_trouble = TroubleLog()
_trouble_with_unsubscribe = TroubleLog()
_trouble_with_health = TroubleLog()


# The webhook --------------------------------------------------------------------------------------


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


_MAX_LENGTH_DIGITS = 4
"""Of ``CONTENT_LENGTH``: a request to unsubscribe has at most 9,999 bytes, and one short field."""


@login_not_required  # the mail program that asks for it has no session, and no cookie at all
@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
@transaction.non_atomic_requests  # which would fail first where the database is gone
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Show a page with a button, which changes nothing; or unsubscribe, as RFC 8058 says.

    The answer to what is no token of this site is 404, and 200 to each good request, also to one
    that comes again. Where the database fails it is 503, and no report of an error, which would
    show the address.
    """
    subscription = read_token(token)
    if subscription is None:
        raise Http404
    if request.method == "POST":
        if len(request.META.get("CONTENT_LENGTH") or "") > _MAX_LENGTH_DIGITS:
            return _answer(413, "Too large.")
        if request.POST.get("List-Unsubscribe") != "One-Click":
            return _answer(400, "The field List-Unsubscribe must be One-Click.")
        try:
            unsubscribe_address(subscription)
        except Error as exc:
            _trouble_with_unsubscribe.failed(
                exc,
                "Somebody could not be unsubscribed: %s. Further ones are not logged.",
                event="unsubscribe_not_stored",
            )
            return _answer(503, "Try again later.")
        _trouble_with_unsubscribe.clear()
    context = {"list_name": subscription.list_name, "is_done": request.method == "POST"}
    response = render(request, "truncus_django/unsubscribe.html", context)
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"  # the address of the page is a key to it
    response["X-Robots-Tag"] = "noindex"
    return response


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


def _is_kept(record: logging.LogRecord) -> bool:
    """Drop Django's own log record of each 500 and 503 of these views, which may be mailed.

    That mail goes by way of Truncus, which sends a webhook about it, which fails like the first
    one, and so on without end. And a probe that asks each second would have an outbox that is late
    mail about it each second. What cannot be unsubscribed has a line of its own.
    """
    match = getattr(getattr(record, "request", None), "resolver_match", None)
    is_failure = getattr(record, "status_code", None) in {500, 503}
    return not is_failure or getattr(match, "func", None) not in (webhook, unsubscribe, health)


logging.getLogger("django.request").addFilter(_is_kept)


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


# Health -------------------------------------------------------------------------------------------


@login_not_required  # a probe has no session; the view asks for more itself
@never_cache
@require_safe
@transaction.non_atomic_requests  # which would fail first where the database is gone
def health(request: HttpRequest) -> HttpResponse:
    """Tell whether emails leave the outbox: 200 or 503, with numbers as JSON.

    For whoever brings ``HEALTH_TOKEN``, and for staff users who may view emails. Others get a 403,
    not a 404: the address is in the documentation, so that nothing would be hidden from strangers,
    and whoever mistypes the token would look for a wrong address.
    """
    try:
        if not (_has_token(request) or _is_staff(request)):
            return _health(403, "forbidden")
        found = outbox_health()
        is_healthy = found.is_healthy(max_age_s=get_settings().health_max_age)
    except (Error, ConfigurationError) as exc:
        _trouble_with_health.failed(
            exc,
            "The health of the outbox is not known: %s. Further ones are not logged.",
            event="health_unknown",
        )
        return _health(503, "unknown")
    _trouble_with_health.clear()
    if is_healthy:
        return _health(200, "healthy", found.as_dict())
    return _health(503, "unhealthy", found.as_dict())


def _has_token(request: HttpRequest) -> bool:
    token = get_settings().health_token
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if token is None or scheme.lower() != "bearer":
        return False
    return constant_time_compare(given.strip(), token)


def _is_staff(request: HttpRequest) -> bool:
    user: Any = getattr(request, "user", None)  # there may be no users
    is_staff = getattr(user, "is_active", False) and getattr(user, "is_staff", False)
    return bool(is_staff) and bool(user.has_perm("truncus_django.view_email"))


def _health(status: int, word: str, numbers: dict[str, float] | None = None) -> JsonResponse:
    return JsonResponse({"status": word, **(numbers or {})}, status=status)
