"""How states, recipients and times look in the admin."""

from collections.abc import Mapping
from datetime import datetime

from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from truncus_django.models import Email
from truncus_django.states import State

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


def recipients(email: Email) -> SafeString:
    """Return the first recipient, and how many more there are."""
    addresses = email.recipients
    if not addresses:
        return format_html('<span class="truncus-none">{}</span>', _("none"))
    first = format_html("<bdi>{}</bdi>", addresses[0])
    if len(addresses) == 1:
        return first
    return format_html(
        '{} <span class="truncus-more" title="{}">{}</span>',
        first,
        ", ".join(addresses[1:21]),
        _("+%(count)d more") % {"count": len(addresses) - 1},
    )


def moment(at: datetime) -> SafeString:
    """Return a time to the minute; pointing at it shows the second."""
    local = timezone.localtime(at) if timezone.is_aware(at) else at
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        local.isoformat(timespec="seconds"),
        local.strftime("%Y-%m-%d %H:%M:%S %Z").strip(),
        formats.date_format(local, "SHORT_DATETIME_FORMAT"),
    )
