"""Emails as CSV, row by row, without anything that a spreadsheet would run."""

import csv
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.http import StreamingHttpResponse
from django.utils import timezone

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
_FORMULA = re.compile(r"[\s\x00-\x1f\ufeff]*[=+\-@＝＋－＠]|[\t\v\f\r\n\x1c-\x1f\x85\u2028\u2029]")
"""How what a spreadsheet may run begins: an operator, full-width too, perhaps after blanks that it
leaves out; and what it may take for the end of the cell or the line."""
_ROWS_AT_ONCE = 2000


def csv_response(queryset: QuerySet[Email]) -> StreamingHttpResponse:
    """Return a download of all emails in ``queryset``, without their bodies."""
    response = StreamingHttpResponse(_lines(queryset), content_type="text/csv; charset=utf-8")
    now = timezone.localtime() if settings.USE_TZ else timezone.now()
    name = now.strftime("emails-%Y-%m-%d.csv")
    response["Content-Disposition"] = f'attachment; filename="{name}"'
    response["X-Content-Type-Options"] = "nosniff"
    response["Cache-Control"] = "no-store"
    return response


def cell(value: Any) -> str:
    """Return a value as a cell; what a spreadsheet would take for a formula gets an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = str(value)
    return f"'{text}" if _FORMULA.match(text) else text


class _Line:
    """A file for the csv module that hands out what is written."""

    def write(self, text: str) -> str:
        return text


def _lines(queryset: QuerySet[Email]) -> Iterator[str]:
    write = csv.writer(_Line()).writerow
    yield write(COLUMNS)
    rows = queryset.values_list(*COLUMNS).iterator(chunk_size=_ROWS_AT_ONCE)
    for row in rows:
        yield write([cell(value) for value in row])
