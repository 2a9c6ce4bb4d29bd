"""How states, recipients and times look in the admin."""

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime

from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from truncus_django.admin.reasons import short_reason
from truncus_django.models import Email
from truncus_django.states import OUTBOX_STATES, State

KINDS: Mapping[str, str] = {
    State.PENDING: "waiting",
    State.SENDING: "waiting",
    State.UNKNOWN: "ambiguous",
    State.SCHEDULED: "waiting",
    State.DEFERRED: "waiting",
    State.SENT: "sent",
    State.CANCELLED: "quiet",
    State.EXPIRED: "quiet",
    State.FAILED: "bad",
    State.REJECTED: "bad",
    State.DELIVERED: "good",
    State.BOUNCED: "bad",
    State.COMPLAINED: "bad",
}
"""State → the colour of its label, as a CSS class."""


def state_label(state: str) -> SafeString:
    """Return a state as a coloured label."""
    # A later version of this package may have written another state.
    label = State(state).label if state in State else state
    return format_html(
        '<span class="truncus-state truncus-{}">{}</span>', KINDS.get(state, "quiet"), label
    )


def sandbox_label() -> SafeString:
    """Return the label of emails that were only checked and stored."""
    return format_html('<span class="truncus-state truncus-sandbox">{}</span>', _("sandbox"))


def reason(email: Email) -> SafeString:
    """Return why an email did not arrive, for the line under its state; empty if nothing tells."""
    text = short_reason(email)
    if not text:
        return SafeString("")
    return format_html('<span class="truncus-reason" title="{0}">{0}</span>', text)


def subject(email: Email) -> str:
    """Return the subject of an email, or words for one in which nothing can be seen."""
    is_seen = any(char.isprintable() and not char.isspace() for char in email.subject)
    return email.subject if is_seen else _("(no subject)")


def in_one_line(text: str, length: int) -> str:
    """Return a text short and without what turns the direction of writing, for use among others."""
    plain = "".join(char for char in text if char.isprintable() or char.isspace())
    return Truncator(" ".join(plain.split())).chars(length)


def quiet(text: str) -> SafeString:
    """Return words that stand where there is no value, in a quieter colour."""
    return format_html('<span class="truncus-none">{}</span>', text)


def address(text: str) -> SafeString:
    """Return an address that breaks before its domain where it has to."""
    at = max(text.rfind("@"), 0)
    wbr = SafeString("<wbr>" if at else "")
    return format_html('<bdi title="{}">{}{}{}</bdi>', text, text[:at], wbr, text[at:])


def recipients(email: Email) -> SafeString:
    """Return the first recipient, and how many more there are."""
    addresses = email.recipients
    if not addresses:
        return quiet(_("none"))
    first = address(addresses[0])
    if len(addresses) == 1:
        return first
    more = len(addresses) - 1
    return format_html(
        '{} <span class="truncus-more" title="{}">{}</span>',
        first,
        ", ".join(addresses[1:21]),
        ngettext("+%(count)d more", "+%(count)d more", more) % {"count": more},
    )


def moment(at: datetime, *, seconds: bool = False) -> SafeString:
    """Return a time to the minute, or to the second; pointing at it shows the second."""
    local = at
    with suppress(OverflowError):  # in the last hours of the year 9999
        local = timezone.localtime(at) if timezone.is_aware(at) else at
    time_format = formats.get_format("TIME_FORMAT")
    if seconds:
        time_format = _with_seconds(time_format)
    day, clock = (
        formats.date_format(local, each).replace(" ", "\u00a0")  # breaks between both alone
        for each in ("SHORT_DATE_FORMAT", time_format)
    )
    return format_html(
        '<time datetime="{}" title="{}">{} {}</time>',
        local.isoformat(timespec="seconds"),
        local.strftime("%Y-%m-%d %H:%M:%S %Z").strip(),
        day,
        clock,
    )


def when(email: Email) -> SafeString:
    """Return when an email was sent, or is to be sent; otherwise, when it was written."""
    if email.sent_at is not None:
        return moment(email.sent_at)
    if email.send_at is not None and email.state in OUTBOX_STATES | {State.SCHEDULED}:
        return format_html(_("for {time}"), time=moment(email.send_at))
    return quiet(moment(email.created_at))


def _with_seconds(time_format: str) -> str:
    """Return a format for times with seconds, which those of Django's locales leave out."""
    return re.sub(r"(\W)i", r"\1i\1s", time_format.replace("P", "g:i a"))
