"""The inbox as HTML. What came over the wire passes through `text`, `linked_text` or `link_to`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from truncus_django.emulator.mailbox import EmailRecord, Event
from truncus_django.html_preview import LINKS_SANDBOX
from truncus_django.links import link_to, linked_text

REFRESH_S = 5
_STYLE = files("truncus_django.emulator").joinpath("inbox.css").read_text(encoding="utf-8")
_GOOD = frozenset({"delivered", "opened", "clicked", "sent"})
_BAD = frozenset({"bounced", "complained", "rejected", "blocked", "failed"})


@dataclass(frozen=True)
class ListView:
    """What the inbox's list shows."""

    emails: Sequence[EmailRecord]
    total: int
    """How many emails fit the search."""
    accepted: int
    query: str
    page: int
    """From 1."""
    page_count: int
    is_refreshing: bool
    dialect: str
    webhook_trouble: str
    """Why the newest webhook was not acknowledged; empty if it was."""


@dataclass(frozen=True)
class Attachment:
    """An attachment as the page lists it."""

    filename: str
    content_type: str
    size_bytes: int


def text(value: object) -> str:
    """Return ``value`` as HTML that is only text, in its own direction of writing."""
    return f"<bdi>{escape(str(value))}</bdi>"


def list_page(view: ListView) -> str:
    """Return the page with the newest emails."""
    rows = "".join(_row(email) for email in view.emails)
    if not rows:
        hint = "Nothing fits this search." if view.query else "No email yet. Send one here."
        rows = f'<tr><td colspan="5" class="empty">{hint}</td></tr>'
    found = f"{view.total:,} found · " if view.query else ""
    body = f"""
<header><h1><a href="/">Truncus emulator</a></h1>
<p class="quiet">{found}{view.accepted:,} accepted · dialect {escape(view.dialect)}</p>
{_webhook_trouble(view)}
<form action="/" role="search">
<input type="search" name="q" value="{escape(view.query)}" placeholder="Search" aria-label="Search">
<button>Search</button> {_refresh_link(view)}</form></header>
<main><table><thead><tr><th>State</th><th>To</th><th>Subject</th><th>From</th><th>Time</th></tr>
</thead><tbody>{rows}</tbody></table>{_pager(view)}</main>"""
    head = f'<meta http-equiv="refresh" content="{REFRESH_S}">' if view.is_refreshing else ""
    return _page("Inbox", body, head)


def mail_page(
    email: EmailRecord, attachments: Sequence[Attachment], *, has_html: bool, urls: Sequence[str]
) -> str:
    """Return the page of one email, whose HTML links to ``urls``."""
    payload = email.payload or {}
    body = f"""
<header><h1><a href="/">Truncus emulator</a></h1><p><a href="/">All emails</a></p></header>
<main><h2>{text(email.subject)}</h2><p>{_badges(email)}</p>
<div class="columns"><section><h3>Message</h3>{_fields(_message_fields(email))}</section>
<section><h3>Events</h3>{_timeline(email.events)}</section></div>
{_attachments(email.id, attachments)}
{_html_frame(email.id, urls) if has_html else ""}
{_text_part(payload)}
<section><h3>Headers and options</h3>{_fields(_option_fields(email))}</section></main>"""
    return _page(email.subject, body)


def message_page(title: str) -> str:
    """Return a page that says one thing."""
    body = f'<header><h1><a href="/">Truncus emulator</a></h1></header><main><p>{text(title)}</p>'
    return _page(title, f"{body}</main>")


def _page(title: str, body: str, head: str = "") -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">
<title>{escape(title)} – Truncus emulator</title>{head}<style>{_STYLE}</style></head>
<body>{body}</body></html>"""


def _webhook_trouble(view: ListView) -> str:
    if not view.webhook_trouble:
        return ""
    return f'<p class="bad">Webhooks are not acknowledged: {escape(view.webhook_trouble)}</p>'


def _row(email: EmailRecord) -> str:
    link = f"/mail/{quote(email.id)}"
    more = f' <span class="quiet">+{len(email.to) - 1}</span>' if len(email.to) > 1 else ""
    return f"""<tr><td>{_badges(email)}</td><td>{_address(email.to[0])}{more}</td>
<td class="subject"><a href="{link}">{text(email.subject)}</a>{_tenant(email)}</td>
<td>{_address(email.sender)}</td><td class="time">{_time(email.created_at)}</td></tr>"""


def _address(address: str) -> str:
    """Return an address that breaks before its ``@`` where needed; the title has it whole."""
    shown = text(address).replace("@", "<wbr>@")
    return f'<span class="address" title="{escape(address)}">{shown}</span>'


def _tenant(email: EmailRecord) -> str:
    return f' <span class="tag">{text(email.tenant_id)}</span>' if email.tenant_id else ""


def _badges(email: EmailRecord) -> str:
    kind = "good" if email.status in _GOOD else "bad" if email.status in _BAD else "open"
    badges = f'<span class="badge {kind}">{escape(email.status)}</span>'
    if email.reason:
        badges += f' <span class="quiet">{_breakable(email.reason)}</span>'
    for engagement in ("opened", "clicked"):
        if any(event.type == engagement for event in email.events):
            badges += f' <span class="quiet">{engagement}</span>'
    if email.sandbox:
        badges += ' <span class="badge sandbox">sandbox</span>'
    if email.send_at is not None:
        badges += f' <span class="quiet">for {_time(email.send_at)}</span>'
    return badges


def _breakable(reason: str) -> str:
    """Return a reason such as ``mailbox_does_not_exist``, which breaks between its words."""
    return text(reason).replace("_", "_<wbr>")


def _refresh_link(view: ListView) -> str:
    if view.is_refreshing:
        return f'<a href="{_list_url(view.query, view.page, refresh=False)}">Stop refreshing</a>'
    label = f"Refresh every {REFRESH_S} s"
    return f'<a href="{_list_url(view.query, view.page, refresh=True)}">{label}</a>'


def _pager(view: ListView) -> str:
    if view.page_count <= 1:
        return ""
    newer = older = ""
    if view.page > 1:
        url = _list_url(view.query, view.page - 1, refresh=view.is_refreshing)
        newer = f'<a href="{url}" rel="prev">Newer</a>'
    if view.page < view.page_count:
        url = _list_url(view.query, view.page + 1, refresh=view.is_refreshing)
        older = f'<a href="{url}" rel="next">Older</a>'
    return f"<nav>{newer} <span>Page {view.page} of {view.page_count}</span> {older}</nav>"


def _list_url(query: str, page: int, *, refresh: bool) -> str:
    wanted: dict[str, Any] = {}
    if query:
        wanted["q"] = query
    if page > 1:
        wanted["page"] = page
    if refresh:
        wanted["refresh"] = 1
    return escape("/?" + urlencode(wanted)) if wanted else "/"


def _message_fields(email: EmailRecord) -> list[tuple[str, object]]:
    payload = email.payload or {}
    return [
        ("From", payload.get("from", email.sender)),
        ("To", _joined(payload.get("to", email.to))),
        ("Cc", _joined(payload.get("cc"))),
        ("Bcc", _joined(payload.get("bcc"))),
        ("Reply-To", payload.get("reply_to")),
        ("Tenant", email.tenant_id),
        ("Received", _time_text(email.created_at)),
        ("Send at", None if email.send_at is None else _time_text(email.send_at)),
        ("Message id", email.id),
        ("Global id", email.global_message_id),
        ("Provider id", email.provider_message_id),
        ("Idempotency key", email.idempotency_key),
        ("Batch", _batch_place(email)),
        ("API key", email.api_key),
    ]


def _option_fields(email: EmailRecord) -> list[tuple[str, object]]:
    payload = email.payload or {}
    fields: list[tuple[str, object]] = [
        (name, payload.get(name)) for name in ("template_id", "track_opens", "track_clicks")
    ]
    for group in ("headers", "metadata", "variables"):
        members = payload.get(group)
        if isinstance(members, dict):
            fields += [(f"{group}: {name}", value) for name, value in members.items()]
    return fields


def _fields(fields: Iterable[tuple[str, object]]) -> str:
    rows = "".join(
        f"<dt>{text(name)}</dt><dd>{text(value)}</dd>"
        for name, value in fields
        if value not in (None, "", [])
    )
    return f"<dl>{rows}</dl>" if rows else '<p class="quiet">None.</p>'


def _joined(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _batch_place(email: EmailRecord) -> str | None:
    if email.batch_index is None:
        return None
    return f"{email.batch_index + 1} of {email.batch_size}"


def _timeline(events: Sequence[Event]) -> str:
    """Return the events, the newest first."""
    rows = "".join(
        f'<li><span class="time">{_time(event.at, in_seconds=True)}</span> '
        f"<b>{escape(event.type)}</b> "
        f'<span class="quiet">{text(_joined(list(event.payload.values())))}</span></li>'
        for event in reversed(events)
    )
    return f'<ol class="timeline" reversed>{rows}</ol>'


def _attachments(email_id: str, attachments: Sequence[Attachment]) -> str:
    if not attachments:
        return ""
    rows = "".join(
        f'<li><a href="/mail/{quote(email_id)}/attachments/{number}" download>'
        f"{text(attachment.filename)}</a> "
        f'<span class="quiet">{text(attachment.content_type)}, {attachment.size_bytes:,} bytes'
        "</span></li>"
        for number, attachment in enumerate(attachments)
    )
    return f"<section><h3>Attachments</h3><ul>{rows}</ul></section>"


def _html_frame(email_id: str, urls: Sequence[str]) -> str:
    links = "".join(f"<li>{link_to(url)}</li>" for url in urls)
    return (
        f'<section><h3>HTML</h3><iframe sandbox="{LINKS_SANDBOX}" '
        f'src="/mail/{quote(email_id)}/html" title="HTML of the email" '
        f'referrerpolicy="no-referrer"></iframe>'
        f"{f'<h3>Links in this email</h3><ul>{links}</ul>' if links else ''}</section>"
    )


def _text_part(payload: Any) -> str:
    plain = payload.get("text")
    if not plain:
        return ""
    return f'<section><h3>Text</h3><pre dir="auto">{linked_text(str(plain))}</pre></section>'


def _time(at: float, *, in_seconds: bool = False) -> str:
    moment = _local(at)
    day = "" if _is_today(moment) else "%Y-%m-%d "
    short = moment.strftime(day + ("%H:%M:%S" if in_seconds or not day else "%H:%M"))
    stamp = moment.isoformat(timespec="milliseconds")
    return f'<time datetime="{stamp}" title="{stamp}">{short}</time>'


def _time_text(at: float) -> str:
    return _local(at).strftime("%Y-%m-%d %H:%M:%S %Z")


def _local(at: float) -> datetime:
    """Return a moment in the local time zone; in UTC where its year would be 10000."""
    in_utc = datetime.fromtimestamp(at, UTC)
    try:
        return in_utc.astimezone()
    except (OverflowError, ValueError):
        return in_utc


def _is_today(moment: datetime) -> bool:
    return moment.date() == datetime.now().astimezone().date()
