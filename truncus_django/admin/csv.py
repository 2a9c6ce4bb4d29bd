"""Emails as CSV, row by row, without anything that a spreadsheet would run."""

import csv
from collections.abc import Iterator

from django.conf import settings
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.utils import timezone

from truncus_django.csv_cells import Line, cell
from truncus_django.models import Email

COLUMNS = (
    "id",
    "message_id",
    "global_message_id",
    "provider_message_id",
    "idempotency_key",
    "state",
    "reason",
    "error_code",
    "from_email",
    "to",
    "cc",
    "bcc",
    "subject",
    "tenant_id",
    "template_id",
    "mailer",
    "is_sandbox",
    "attachment_count",
    "attachment_bytes",
    "open_count",
    "click_count",
    "created_at",
    "send_at",
    "sent_at",
    "delivered_at",
    "bounced_at",
    "complained_at",
    "first_opened_at",
    "last_opened_at",
)
_ROWS_AT_ONCE = 2000


def csv_response(queryset: QuerySet[Email]) -> StreamingHttpResponse:
    """Return a download of all emails in ``queryset``, without their bodies."""
    return file_response(_lines(queryset), "emails")


def file_response(lines: Iterator[str], name: str) -> StreamingHttpResponse:
    """Return a download of a CSV file, which is named after the day, too."""
    response = StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8")
    now = timezone.localtime() if settings.USE_TZ else timezone.now()
    response["Content-Disposition"] = f'attachment; filename="{name}-{now:%Y-%m-%d}.csv"'
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "no-store"
    return response


def _lines(queryset: QuerySet[Email]) -> Iterator[str]:
    write = csv.writer(Line()).writerow
    yield write(COLUMNS)
    rows = queryset.values_list(*COLUMNS).iterator(chunk_size=_ROWS_AT_ONCE)
    for row in rows:
        yield write([cell(value) for value in row])
