"""The inbox in the browser: reads only, loads nothing from outside, runs no script.

A link in an email can be followed: it opens in a new tab, which learns nothing of the inbox.
"""

import base64
import math
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.http import dump_options_header
from werkzeug.routing import Map, Rule
from werkzeug.wrappers import Request, Response

from truncus_django.emulator.mailbox import EmailRecord
from truncus_django.emulator.pages import Attachment, ListView, list_page, mail_page, message_page
from truncus_django.emulator.service import Service
from truncus_django.html_preview import LINKS_HEADERS, links_of, preview_page

PAGE_SIZE = 50
PAGE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ROUTES = Map(
    [
        Rule("/", endpoint="list", methods=["GET"]),
        Rule("/mail/<id>", endpoint="mail", methods=["GET"]),
        Rule("/mail/<id>/html", endpoint="html", methods=["GET"]),
        Rule("/mail/<id>/attachments/<int:number>", endpoint="attachment", methods=["GET"]),
    ]
)


class Inbox:
    """Answers the inbox's pages from one service."""

    def __init__(self, service: Service) -> None:
        """Show what ``service`` took."""
        self._service = service
        self._views: dict[str, Callable[..., Response]] = {
            "list": self._list,
            "mail": self._mail,
            "html": self._html,
            "attachment": self._attachment,
        }

    def respond(self, request: Request) -> Response:
        """Return the answer to ``request``."""
        try:
            endpoint, arguments = _ROUTES.bind_to_environ(request.environ).match()
            self._service.run_due()
            return self._views[endpoint](request, **arguments)
        except HTTPException as error:
            status = error.code or 404
            return _page(message_page(error.name), status=status)

    def _list(self, request: Request) -> Response:
        query = request.args.get("q", "").strip()
        with self._service.changed:
            found = list(self._service.mailbox.newest(query=query))
            page_count = max(1, math.ceil(len(found) / PAGE_SIZE))
            page = min(max(1, request.args.get("page", 1, type=int)), page_count)
            shown = found[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
            view = ListView(
                emails=[email.record() for email in shown],
                total=len(found),
                accepted=self._service.mailbox.accepted,
                query=query,
                page=page,
                page_count=page_count,
                is_refreshing="refresh" in request.args,
                dialect=self._service.options.dialect,
                webhook_trouble=self._service.webhooks.trouble,
            )
        return _page(list_page(view))

    def _mail(self, _request: Request, id: str) -> Response:  # noqa: A002 - the route's name
        record, html = self._find(id)
        listed = [_listed(attachment) for attachment in _attachments(record)]
        return _page(mail_page(record, listed, has_html=bool(html), urls=links_of(html)))

    def _html(self, _request: Request, id: str) -> Response:  # noqa: A002 - the route's name
        _record, html = self._find(id)
        response = _page(preview_page(html, links=True))
        response.headers.update(LINKS_HEADERS)
        return response

    def _attachment(
        self,
        _request: Request,
        id: str,  # noqa: A002 - the route's name
        number: int,
    ) -> Response:
        record, _html = self._find(id)
        attachments = _attachments(record)
        if number >= len(attachments):
            raise NotFound
        attachment = attachments[number]
        content = base64.b64decode(attachment["content"])
        headers = Headers()
        headers["Content-Disposition"] = _disposition(attachment["filename"])
        return _guarded(Response(content, mimetype="application/octet-stream", headers=headers))

    def _find(self, message_id: str) -> tuple[EmailRecord, str]:
        """Return an email and its HTML; pages are made of them while others are taken."""
        with self._service.changed:
            email = self._service.mailbox.get(message_id)
            if email is None:
                raise NotFound
            return email.record(), email.html


def _attachments(record: EmailRecord) -> list[dict[str, Any]]:
    return list((record.payload or {}).get("attachments") or [])


def _listed(attachment: dict[str, Any]) -> Attachment:
    return Attachment(
        filename=attachment["filename"],
        content_type=attachment.get("content_type") or "application/octet-stream",
        size_bytes=len(base64.b64decode(attachment["content"])),
    )


def _disposition(filename: str) -> str:
    """Return a ``Content-Disposition`` that saves under ``filename``, whatever is in it."""
    name = "".join("_" if not c.isprintable() or c in "/\\" else c for c in filename)
    plain = "".join(c if c.isascii() else "_" for c in name)
    names = {"filename": plain}
    if plain != name:
        names["filename*"] = f"UTF-8''{quote(name)}"
    return dump_options_header("attachment", names)


def _page(html: str, status: int = 200) -> Response:
    # JSON can hold lone surrogates, which UTF-8 cannot.
    content = html.encode("utf-8", "replace")
    response = _guarded(Response(content, status=status, content_type="text/html; charset=utf-8"))
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    response.headers["X-Frame-Options"] = "DENY"
    return response


def _guarded(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-DNS-Prefetch-Control"] = "off"  # else hosts of links are looked up
    response.headers["Cache-Control"] = "no-store"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    return response
