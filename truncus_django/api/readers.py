"""Reading the values of options: each reader returns one of its type or raises ValueError.

What a ValueError says completes a sentence that begins with the option's name.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from truncus_django.api.keys import ApiKey, Secret, is_placeholder
from truncus_django.api.urls import is_host, is_loopback


class FromEnvironment(str):
    """Text that stands for a value of another type."""

    __slots__ = ()


def text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a string that is not empty.")
    if any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in value):
        raise ValueError("holds a line break or control character.")
    return str(value)


def optional_text(value: Any) -> str | None:
    return None if value is None else text(value)


def optional_url(value: Any) -> str | None:
    if value is None:
        return None
    url = text(value)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc:
        raise ValueError("must be a URL like 'https://www.example.com', or None.")
    return url


def optional_link_base(value: Any) -> str | None:
    """Return what links in emails begin with, without a slash at its end."""
    if value is None:
        return None
    url = text(value)
    try:
        parts = urlsplit(url)
        given, port = parts.hostname or "", parts.port
        host = _in_ascii(given)
    except ValueError:
        parts, given, host, port = urlsplit(""), "", "", None
    is_secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    plain = f"{parts.scheme}://{parts.netloc}"
    if not is_host(host) or not is_secure or url.rstrip("/") != plain or "@" in url:
        raise ValueError("must be an https URL without a path, like 'https://www.example.com'.")
    if given.isascii():
        return plain
    return f"{parts.scheme}://{host}" + ("" if port is None else f":{port}")


def optional_address(value: Any) -> str | None:
    return None if value is None else addresses([text(value)])[0]


def optional_api_key(value: Any) -> ApiKey | None:
    return None if value is None else ApiKey(text(value))


def optional_callable(value: Any) -> Any:
    """Return a callable, or the dotted path of one, which is imported when it is used."""
    if value is None or callable(value):
        return value
    if not isinstance(value, str) or not all(map(str.isidentifier, value.split("."))):
        raise ValueError("must be a callable, or the dotted path of one.")
    if "." not in value:
        raise ValueError("must be a dotted path such as 'shop.mail.account_for', or a callable.")
    return str(value)


def boolean(value: Any) -> bool:
    if isinstance(value, FromEnvironment):
        if value.strip().lower() in {"1", "true", "yes", "on"}:
            return True
        if value.strip().lower() in {"0", "false", "no", "off"}:
            return False
    if not isinstance(value, bool):
        raise ValueError("must be True or False.")  # noqa: TRY004  one kind of error for readers
    return value


def optional_boolean(value: Any) -> bool | None:
    return None if value is None else boolean(value)


def positive_number(value: Any) -> float:
    seconds = number(value)
    if seconds <= 0:
        raise ValueError("must be a number of seconds above 0.")
    return seconds


def number(value: Any) -> float:
    if isinstance(value, FromEnvironment):
        value = float(value) if _is_number(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError("must be a number of seconds, 0 or more.")
    return float(value)


def count(value: Any) -> int:
    if isinstance(value, FromEnvironment) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1_000_000:
        raise ValueError("must be a whole number, 0 or more.")
    return int(value)


def count_or_share(value: Any) -> float:
    """Return a whole number of things, or a part of them, which is below 1."""
    if isinstance(value, FromEnvironment) and _is_number(value):
        value = float(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 10**9 or (value > 1 and value % 1):
        raise ValueError("must be a whole number of emails such as 500, or a share such as 0.05.")
    return float(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def optional_days(value: Any) -> int | None:
    if isinstance(value, FromEnvironment) and value.isdecimal():
        value = int(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 100_000:
        raise ValueError("must be a whole number of days above 0, or None.")
    return int(value)


def secrets(value: Any) -> tuple[Secret, ...]:
    found = names([value] if isinstance(value, str) and "," not in value else value)
    if not all(found):
        raise ValueError("holds an empty secret, which would accept anybody's webhooks.")
    if any(is_placeholder(secret) for secret in found):
        raise ValueError("holds a placeholder; set the secret that Truncus shows for the webhook.")
    return tuple(Secret(secret) for secret in found)


def optional_secret(value: Any) -> Secret | None:
    """Return a secret that fits into an HTTP header."""
    if value is None:
        return None
    secret = text(value)
    if not secret.isascii() or " " in secret:
        raise ValueError("must be of ASCII characters without spaces.")
    if is_placeholder(secret):
        raise ValueError("holds a placeholder; make one with secrets.token_urlsafe().")
    if len(secret) < _SHORTEST_SECRET:
        raise ValueError(
            f"must have at least {_SHORTEST_SECRET} characters; make one with "
            "secrets.token_urlsafe()."
        )
    return Secret(secret)


_SHORTEST_SECRET = 16
"""Characters; whoever may try as often as they like guesses shorter ones."""


def strings_by_name(value: Any) -> Mapping[str, str]:
    if isinstance(value, FromEnvironment):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as exc:
            raise ValueError(
                f'must be JSON like {{"site": "shop"}} (error at character {exc.pos + 1}).'
            ) from None
    texts = {}
    for key, item in value.items() if isinstance(value, Mapping) else [(None, None)]:
        text_of_item = scalar_text(item)
        if not isinstance(key, str) or text_of_item is None:
            raise ValueError("must be a dict of strings and numbers.")
        texts[key] = text_of_item
    return MappingProxyType(texts)


def scalar_text(value: Any) -> str | None:
    """Return strings, numbers, dates and UUIDs as a plain string, anything else as ``None``."""
    if isinstance(value, str | int | float | Decimal | UUID):
        return str(value)
    return value.isoformat() if isinstance(value, date) else None


def names(value: Any) -> tuple[str, ...]:
    if isinstance(value, FromEnvironment):
        value = [name.strip() for name in value.split(",") if name.strip()]
    if not isinstance(value, list | tuple | set | frozenset) or not all(
        isinstance(name, str) for name in value
    ):
        raise ValueError("must be a list of strings.")
    return tuple(value)


_ADDRESS = re.compile(r"[^\s@<>,;:*?\[\]]+@[^\s@<>,;:*?\[\]]+")
_PATTERN = re.compile(r"[^\s@<>,;:]*@[^\s@<>,;:]+")


def addresses(value: Any) -> tuple[str, ...]:
    """Return bare addresses, in small letters and with their domains in ASCII."""
    return _addresses(value, _ADDRESS, "is no address without a name, such as dev@example.com")


def address_patterns(value: Any) -> tuple[str, ...]:
    """Return what addresses may look like, in the same form as :func:`addresses`."""
    return _addresses(
        value,
        _PATTERN,
        "can match no address: give one, '@example.com' for a domain, or 'qa+*@example.com'",
    )


def _addresses(value: Any, form: re.Pattern[str], problem: str) -> tuple[str, ...]:
    found = []
    for index, item in enumerate(names(value), 1):
        text = item.strip().lower()
        local, _, domain = text.rpartition("@")
        if not form.fullmatch(text):
            raise ValueError(f"holds something, its number {index}, that {problem}.")
        try:
            domain = _in_ascii(domain)
        except UnicodeError:
            raise ValueError(
                f"holds something, its number {index}, whose domain cannot exist."
            ) from None
        found.append(f"{local}@{domain}")
    return tuple(found)


def _in_ascii(domain: str) -> str:
    """Return a domain in ASCII; raises UnicodeError if it cannot exist."""
    if domain.isascii():
        return domain
    import idna  # comes with requests; rarely needed

    return idna.encode(domain, uts46=True).decode()


def one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError("must be " + " or ".join(repr(choice) for choice in choices) + ".")
        return str(value)

    return read
