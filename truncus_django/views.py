"""The webhook: Truncus tells here what became of emails, and who opened them."""

import logging
import time

from django.contrib.auth.decorators import login_not_required
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from truncus_django.api import contract
from truncus_django.api.errors import ConfigurationError, WebhookVerificationError
from truncus_django.api.webhooks import verify
from truncus_django.conf import get_settings
from truncus_django.log.ingest import ingest
from truncus_django.log.webhook_payload import read_event
from truncus_django.models import database

logger = logging.getLogger("truncus_django")

MAX_BODY_BYTES = 256 * 1024
"""Of a webhook; the published ones have less than 1 KB."""

_reported: set[str] = set()
"""What the operator was told since a webhook was last stored."""


@login_not_required  # of use with LoginRequiredMiddleware; needs no users otherwise
@csrf_exempt
@require_POST
@transaction.non_atomic_requests
def webhook(request: HttpRequest) -> HttpResponse:
    """Verify a webhook, store and apply what it tells, and acknowledge it with 200.

    Whatever is wrong with its signature, the answer is the same. Trouble of our own is a 500, so
    that Truncus repeats it.
    """
    try:
        body = _body(request)
        if body is None:
            return _answer(413, "Too large.")
        signed_at = _verified_timestamp(request, body)
        incoming = read_event(body, signed_at=signed_at)
    except WebhookVerificationError as error:
        logger.warning("A webhook was refused: %s", error.message)
        return _answer(403, "Refused.")
    except _LengthRequired:
        logger.warning(
            "A webhook came without a Content-Length, and this server does not tell where it ends."
        )
        return _answer(411, "Length required.")
    except (ValueError, OSError) as error:  # it cannot be read, or its sender broke off
        logger.warning("A webhook could not be read: %s.", type(error).__name__)
        return _answer(400, "Unreadable.")
    except ConfigurationError as error:
        return _trouble(error)
    try:
        if not _is_committed():
            return _try_again(
                "Webhooks are not stored: DATABASES has AUTOCOMMIT off for the log's database."
            )
        ingest([incoming])
    except Exception as error:  # noqa: BLE001  whatever it is, Truncus must repeat it
        return _trouble(error)
    _reported.clear()
    return _answer(200, "OK")


def _body(request: HttpRequest) -> bytes | None:
    """Return the raw body; ``None`` if it is too large, of which no more than that is read.

    Not ``request.body``: that goes by the limit for forms, which a project may have set lower.
    """
    announced = request.META.get("CONTENT_LENGTH") or ""
    if announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES:
        return None
    if announced.isdecimal() or "wsgi.input" not in request.META:
        body: bytes = request.read(MAX_BODY_BYTES + 1)
    else:
        body = _unannounced_body(request)
    return body if len(body) <= MAX_BODY_BYTES else None


def _unannounced_body(request: HttpRequest) -> bytes:
    """Return a body that comes in chunks, up to one byte over the limit.

    WSGI has no such thing, and Django reads nothing then; but many servers put the chunks
    together, and say so.
    """
    if not request.META.get("wsgi.input_terminated"):
        raise _LengthRequired
    body = b""
    while len(body) <= MAX_BODY_BYTES:
        part = request.META["wsgi.input"].read(MAX_BODY_BYTES + 1 - len(body))
        if not part:
            break
        body += part
    return body


class _LengthRequired(Exception):
    """Where the body ends is not known."""


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


def _is_committed() -> bool:
    """Whether what is stored now stays; nobody commits it where ``AUTOCOMMIT`` is off."""
    connection = connections[database()]
    return connection.in_atomic_block or connection.get_autocommit()


def _trouble(error: Exception) -> HttpResponse:
    return _try_again(
        f"A webhook could not be stored: {type(error).__name__}. Truncus will repeat it."
    )


def _try_again(problem: str) -> HttpResponse:
    """Return an answer that makes Truncus repeat the webhook.

    Django would log each as an error, and mail it to the admins: by way of Truncus, which tells
    of that mail with a webhook, which meets the same trouble, and so on without end.
    """
    _report(problem)
    answer = _answer(500, "Try again.")
    answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer


def _report(problem: str) -> None:
    """Tell the operator once, until a webhook is stored again."""
    if problem not in _reported:
        _reported.add(problem)
        logger.error("%s Further ones are not logged.", problem)


def _answer(status: int, text: str) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
