"""Email addresses in the form that the API takes: names in Unicode, domains in IDNA 2008."""

import re
from email.errors import HeaderParseError
from email.headerregistry import Address, parser  # type: ignore[attr-defined]
from functools import lru_cache
from typing import Any

from django.utils.functional import Promise

from truncus_django.api.errors import InvalidAddress
from truncus_django.validation import checked_line

RECIPIENT_FIELDS = ("to", "cc", "bcc")
"""The API's fields that hold recipients."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_ADDR_SPEC = rf"(?![^@]*=\?)(?P<local>{_ATOM}(?:\.{_ATOM})*)@{_HOST}"
_PLAIN = re.compile(_ADDR_SPEC)
_NAMED = re.compile(rf"[\w'-]+(?: [\w'-]+)* <(?P<spec>{_ADDR_SPEC})>")
_LOOSELY_NAMED = re.compile(r'(?P<name>[^"<>,;:\\]*)<(?P<spec>[^<>]*)>')
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_LIST_ITEM = re.compile(r'(?:"(?:[^"\\]|\\.)*"?|[^",])+')
_DOMAIN = re.compile(_HOST)
_IN_BRACKETS = re.compile(r'<((?:"(?:[^"\\]|\\.)*"|[^<>"])*)>\Z')
_MAX_LOCAL, _MAX_LENGTH = 64, 254  # RFC 5321, 4.5.3.1, and its erratum 1690
_MISPLACED_DOT = re.compile(r"^\.|\.\.|\.$")
"""In a local part, valid in quotes alone (RFC 5322, 3.4.1). Some Japanese addresses have it."""
# Also what an unquoted name would lose: runs of spaces, and text that looks like an encoded word.
_NEEDS_QUOTES = re.compile(r'[()<>\[\]:;@\\,."\t]|  |=\?')
_PARSER_ERRORS = (HeaderParseError, ValueError, IndexError, AttributeError, RecursionError)


def address(given: Any, field: str, index: int | None = None) -> str:
    """Return one address as the API takes it.

    Args:
        given: ``ann@example.com`` or ``Ann <ann@example.com>``, perhaps lazy.
        field, index: where it stands, for the error: the address itself is never shown.

    Raises:
        InvalidAddress: it is malformed, or more than one address.
    """
    if not isinstance(given, str | Promise):
        raise InvalidAddress(
            f"The address in {_place(field, index)} is a {type(given).__name__}; give a string."
        )
    text = str(given)
    # The two common forms are taken as they are; only the others are worth a parser's time.
    common = _PLAIN.fullmatch(text) or _NAMED.fullmatch(text)
    if common and len(common["local"]) <= _MAX_LOCAL and len(text) <= _MAX_LENGTH:
        return text
    try:
        return _parsed(text)
    except _MalformedError as exc:
        raise InvalidAddress(f"The address in {_place(field, index)} {exc}") from None


def address_list(text: str, field: str) -> list[str]:
    """Return the addresses in ``text``, a header's value with commas between them.

    Raises:
        InvalidAddress: one of them is malformed, or there is none.
    """
    items = [item for item in _LIST_ITEM.findall(text) if item.strip()]
    if not items:
        raise InvalidAddress(f"The header {field!r} has no address; leave it out.")
    return [address(item.strip(), field, index) for index, item in enumerate(items)]


def bare_address(formatted: str) -> str:
    """Return what :func:`address` returned without its name."""
    found = _IN_BRACKETS.search(formatted) if formatted.endswith(">") else None
    return found[1] if found else formatted


def listed(value: Any) -> list[Any]:
    """Return what stands in one of :data:`RECIPIENT_FIELDS` as a list, whatever it holds."""
    if isinstance(value, list | tuple):
        return list(value)
    return [value] if value else []


def mailbox(given: Any, field: str, index: int | None = None) -> str:
    """Return an address to compare others with: bare, in small letters, its domain in ASCII.

    Raises:
        InvalidAddress: it is malformed.
    """
    return bare_address(address(given, field, index)).lower()


class _MalformedError(ValueError):
    """Why a text is no address; completes the sentence 'The address …'."""


def _place(field: str, index: int | None) -> str:
    return repr(field) if index is None else f"{field!r}, number {index + 1},"


# Display names come again and again: the sender's above all.
@lru_cache(maxsize=256)
def _parsed(text: str) -> str:
    try:
        checked_line(text, "it", InvalidAddress)
    except InvalidAddress:
        raise _MalformedError(
            "has a line break, a control character or half a character; remove it."
        ) from None
    if "=?" in text.rpartition("<")[2]:
        # Receivers that decode it would deliver to another address than the one checked here.
        raise _MalformedError("has an encoded word outside its name; write the address plainly.")
    name, spec = "", text.strip()
    loose = _LOOSELY_NAMED.fullmatch(spec)
    if loose and "=?" not in loose["name"]:
        # By the letter of RFC 5322, "Ann (Sales) <ann@example.com>" has a comment that no reader
        # would see, and an address for a name needs quotes; what people mean is a name.
        name, spec = loose["name"].strip(), loose["spec"].strip()
    try:
        mailbox, rest = parser.get_mailbox(spec)
        name, local, domain = mailbox.display_name or name, mailbox.local_part, mailbox.domain
    except _PARSER_ERRORS:
        raise _MalformedError(
            "is malformed; write ann@example.com or Ann <ann@example.com>."
        ) from None
    if rest:
        raise _MalformedError(
            "is followed by something else; give each address as an item of its own, and quote "
            "names with commas."
        )
    if "(" in _QUOTED.sub("", spec):
        raise _MalformedError("has a comment in parentheses; write Name <ann@example.com>.")
    if not local or not domain:
        raise _MalformedError("has nothing before or nothing after its @.")
    return _formatted(_checked_name(name), _addr_spec(local, domain))


def _addr_spec(local: str, domain: str) -> str:
    if not local.isascii():
        raise _MalformedError(
            "has letters before its @ that Amazon SES, which Truncus sends through, does not take; "
            "it takes ASCII there."
        )
    host = _ascii_domain(domain)
    try:
        spec = Address(username=local, domain=host).addr_spec
        if spec == f"{local}@{host}" and _MISPLACED_DOT.search(local):
            spec = f'"{local}"@{host}'
        checked_line(spec, "it", InvalidAddress)
    except (HeaderParseError, ValueError, IndexError, InvalidAddress):
        raise _MalformedError("is malformed before its @.") from None
    if len(local) > _MAX_LOCAL or len(spec) > _MAX_LENGTH:
        raise _MalformedError("is longer than addresses can be.")
    return spec


def _ascii_domain(domain: str) -> str:
    """Return ``domain`` in ASCII, by IDNA 2008: what registries use, unlike Python's own codec."""
    if not domain.isascii():
        import idna  # comes with requests; rarely needed

        try:
            domain = idna.encode(domain, uts46=True).decode()
        except (idna.IDNAError, UnicodeError):
            raise _MalformedError("has a domain that cannot exist.") from None
    if not _DOMAIN.fullmatch(domain) or len(domain) > 253:
        raise _MalformedError("has a domain that is no host name.")
    return domain


def _checked_name(name: str) -> str:
    """Return a display name; a decoded one may hold what its encoded form hid."""
    try:
        return checked_line(name, "it", InvalidAddress)
    except InvalidAddress:
        raise _MalformedError(
            "has a line break, a control character or half a character in its name."
        ) from None


def _formatted(name: str, spec: str) -> str:
    if not name:
        return spec
    if _NEEDS_QUOTES.search(name) or name != name.strip():
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}" <{spec}>'
    return f"{name} <{spec}>"
