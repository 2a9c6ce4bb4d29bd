"""The webhook, where Truncus reports what became of emails; and the page to unsubscribe."""

import logging
import time

from django.contrib.auth.decorators import login_not_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

from truncus_django.api import contract
from truncus_django.api.errors import ConfigurationError, WebhookVerificationError
from truncus_django.api.webhooks import verify
from truncus_django.conf import get_settings
from truncus_django.log.ingest import ingest
from truncus_django.log.suppression import unsubscribe_address
from truncus_django.log.webhook_payload import read_event
from truncus_django.trouble_log import TroubleLog
from truncus_django.unsubscribe import read_token

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
    try:
        if int(request.META.get("CONTENT_LENGTH", "")) > MAX_BODY_BYTES:
            return _answer(413, "Too large.")
        # Not request.body: that goes by the limit for forms, which a project may have set lower.
        body = request.read(MAX_BODY_BYTES)
        signed_at = _verified_timestamp(request, body)
        incoming = read_event(body, signed_at=signed_at)
    except WebhookVerificationError as error:
        logger.warning("A webhook was refused: %s", error.message)
        return _answer(403, "Refused.")
    except (ValueError, OSError) as error:  # no length, no such JSON, or its sender broke off
        logger.warning("A webhook could not be read: %s.", type(error).__name__)
        return _answer(400, "Unreadable.")
    except ConfigurationError as error:
        return _try_again(error)
    try:
        ingest([incoming])
    except Exception as error:  # noqa: BLE001  whatever it is, Truncus must repeat it
        return _try_again(error)
    _trouble.clear()
    return _answer(200, "OK")


_MAX_FORM_DIGITS = 4
"""Of the length of a request to unsubscribe, in bytes: it has one short field."""


@login_not_required  # the mail program that asks for it has no session, and no cookie at all
@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def unsubscribe(request: HttpRequest, token: str) -> HttpResponse:
    """Show a page with a button, which changes nothing; or unsubscribe, as RFC 8058 says.

    The answer to what is no token of this site is 404, and 200 to each good request, also to one
    that comes again.
    """
    subscription = read_token(token)
    if subscription is None:
        raise Http404
    if request.method == "POST":
        if len(request.META.get("CONTENT_LENGTH") or "") > _MAX_FORM_DIGITS:
            return _answer(413, "Too large.")
        if request.POST.get("List-Unsubscribe") != "One-Click":
            return _answer(400, "The field List-Unsubscribe must be One-Click.")
        unsubscribe_address(subscription)
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
        _report("Webhooks arrive and are all refused: TRUNCUS has no WEBHOOK_SECRETS.")
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
    _report(f"A webhook could not be stored: {type(error).__name__}. Truncus will repeat it.")
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


def _report(problem: str) -> None:
    """Log a problem once, until a webhook is stored again."""
    _trouble.error(problem, "%s Further ones are not logged.", problem)


def _answer(status: int, text: str) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
