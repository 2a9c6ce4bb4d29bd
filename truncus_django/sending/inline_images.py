"""Images inside the HTML → images in a storage, for the API has no Content-ID.

``<img src="cid:logo">`` refers to an attachment with the header ``Content-ID: <logo>``. With
``INLINE_IMAGES = "hosted"`` the attachment goes into a Django storage, and its URL into the HTML.
"""

import hashlib
import html as html_entities
import re
from base64 import b64encode
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.mail import EmailMessage

from truncus_django.api import contract
from truncus_django.api.errors import MessageError
from truncus_django.conf import ConfigurationError, Settings
from truncus_django.sending.attachments import read_attachment

FOLDER = "email-images"
_REFERENCE = re.compile(
    r"""
    ( \s[\w:.-]+ \s* = \s* (?:["']\s*)?                                    # an attribute
    | url\(\s* (?:(?:["']|&quot;|&apos;|&\#0*3[49];|&\#x0*2[27];)\s*)? )   # CSS
    cid: ( (?:[^\s"'<>()&]|&amp;)+ )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_STARTS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"\xff\xd8\xff"), "jpg"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "webp"),
)
"""How the files of the types begin that every browser only ever shows: no script runs in them."""


_Host = TypeVar("_Host", bound="ImageHost")


@dataclass(frozen=True, slots=True)
class ImageHost:
    """A storage for images.

    Attributes:
        alias: of the storage in ``STORAGES``.
        base_url: what its URLs are joined to where they are not absolute.
        urls: of what it took already, by name: a list of messages asks once for an image.
    """

    alias: str
    base_url: str | None
    urls: dict[str, str] = field(default_factory=dict)

    def url_of(self, content: bytes, extension: str) -> str:
        """Put an image into the storage, if it is not there yet; return its absolute URL.

        Raises:
            MessageError: the storage failed.
            ConfigurationError: there is no such storage, or nothing makes its URL absolute.
        """
        name = f"{FOLDER}/{hashlib.sha256(content).hexdigest()}.{extension}"
        if name not in self.urls:
            self.urls[name] = self._absolute(self._stored(name, content))
        return self.urls[name]

    def _stored(self, name: str, content: bytes) -> str:
        try:
            storage = storages[self.alias]
        except ImproperlyConfigured:  # InvalidStorageError is one
            raise ConfigurationError(
                f"INLINE_IMAGES_STORAGE is {self.alias!r}, and STORAGES has no such storage, or "
                "one that cannot be made."
            ) from None
        try:
            is_there = storage.exists(name)
            if is_there and storage.size(name) != len(content):
                storage.delete(name)  # it failed half-way
                is_there = False
            if not is_there:
                name = storage.save(name, ContentFile(content))
            return str(storage.url(name))
        except Exception as exc:  # noqa: BLE001  a storage may raise anything
            # Without the cause, whose text may hold anything, too.
            raise MessageError(
                f"The storage {self.alias!r} (INLINE_IMAGES_STORAGE) failed with "
                f"{type(exc).__name__} when it was given an image of the email; the email was not "
                "sent. Send it again once the storage works."
            ) from None

    def _absolute(self, url: str) -> str:
        url = urljoin(self.base_url or "", url)
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ConfigurationError(
                f"The storage {self.alias!r} (INLINE_IMAGES_STORAGE) gives URLs without a host, "
                "which lead nowhere in an email: set TRUNCUS['INLINE_IMAGES_BASE_URL'] to one like "
                "'https://www.example.com'."
            )
        return url


class UnstoredImages(ImageHost):
    """Puts images into no storage: for emails that are only looked at."""

    def url_of(self, content: bytes, extension: str) -> str:
        """Return a URL that stands for an image until :meth:`put_into`."""
        url = f"https://images.invalid/{hashlib.sha256(content).hexdigest()}.{extension}"
        kind = "jpeg" if extension == "jpg" else extension
        self.urls[url] = f"data:image/{kind};base64,{b64encode(content).decode()}"
        return url

    def put_into(self, html: str) -> str:
        """Return the HTML with the images in it; without them where it would become too large."""
        shown = html
        for url, data in self.urls.items():
            shown = shown.replace(url, data)
        return shown if len(shown) <= contract.MAX_HTML_BYTES else html


def host_of(settings: Settings) -> ImageHost | None:
    """Return where images are put, or ``None`` with ``INLINE_IMAGES = "error"``."""
    return _host(ImageHost, settings)


def host_without_storage(settings: Settings) -> "UnstoredImages | None":
    """Return the same for emails that are only looked at."""
    return _host(UnstoredImages, settings)


def _host(kind: type[_Host], settings: Settings) -> _Host | None:
    if settings.inline_images != "hosted":
        return None
    return kind(settings.inline_images_storage, settings.inline_images_base_url)


def with_hosted_images(
    html: str, message: EmailMessage, host: ImageHost
) -> tuple[str, frozenset[int]]:
    """Put each image that ``html`` refers to into the storage.

    Returns:
        The HTML with their URLs, and the places of those attachments, which are not sent.

    Raises:
        MessageError: an image is missing, is of another type, or the storage failed.
        ConfigurationError: as :meth:`ImageHost.url_of`.
    """
    if "cid:" not in html.lower():
        return html, frozenset()
    places = _places_by_content_id(message)
    hosted: dict[int, str] = {}

    def url_of(reference: re.Match[str]) -> str:
        place = places.get(unquote(html_entities.unescape(reference[2])))
        if place is None:
            raise MessageError(
                "The HTML refers to an image by 'cid:', and no attachment has this Content-ID: "
                "attach the image as a MIME part with the header Content-ID, or link to it."
            )
        if place not in hosted:
            hosted[place] = _hosted(message.attachments[place], place, host)
        return reference[1] + html_entities.escape(hosted[place])

    return _REFERENCE.sub(url_of, html), frozenset(hosted)


def _places_by_content_id(message: EmailMessage) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, given in enumerate(message.attachments):
        content_id = given.get("Content-ID") if isinstance(given, Message) else None
        if content_id:
            places.setdefault(str(content_id).strip().removeprefix("<").removesuffix(">"), place)
    return places


def _hosted(given: Any, place: int, host: ImageHost) -> str:
    content = read_attachment(given, index=place).content
    for start, extension in _STARTS:
        if start.match(content):
            return host.url_of(content, extension)
    raise MessageError(
        f"Attachment {place + 1}, an image inside the HTML, is no PNG, JPEG, GIF or WebP, and "
        "no other type is put into a storage; convert it."
    )
