"""One person's address in all the ways that texts spell it."""

import html
import re
import unicodedata
from collections.abc import Mapping
from html.entities import html5
from typing import Any

from truncus_django.api.errors import MessageError
from truncus_django.sending.addresses import bare_address, mailbox
from truncus_django.sending.forgotten import FORGOTTEN

_QUOTE = r'(?:\\?"|&quot;|&\#34;|%22)'
_WITHOUT_SPACES = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Letters of languages that put none around an address: Thai, Lao, Burmese, Khmer, Japanese,
Chinese, Korean."""
_BEFORE = (
    r"(?:(?<![\w.+-])(?<!\w')"
    rf"|(?<=[{_WITHOUT_SPACES}])"
    # What a URL or an escaped line end puts before it is no part of it.
    r"|(?<=%(?:09|0A|0D|20|22|26|27|28|2C|2F|3A|3B|3C|3D|3F|5B|7B|7C))|(?<=\\[nrt]))"
)
_AFTER = rf"(?![^\W_{_WITHOUT_SPACES}])(?![\w-]*\.\w)"
_BEFORE_IN_KEY, _AFTER_IN_KEY = r"(?<![^\W_])", r"(?![^\W_])(?!\.\w)"
_WORD = re.compile(r"[A-Za-z0-9]+")
_NAMES = {value: name for name, value in html5.items() if len(value) == 1 and name.endswith(";")}


class Person:
    """Whoever has an address, in any case, with any name, in any form of its domain.

    Args:
        address: ``ann@example.org`` or ``Ann <ann@example.org>``.

    Raises:
        InvalidAddress: it is malformed.
    """

    def __init__(self, address: str) -> None:
        self.address = mailbox(address, "address")
        """Bare, in small letters, its domain in ASCII."""
        local, _, domain = self.address.rpartition("@")
        if local.startswith('"'):
            local = re.sub(r"\\(.)", r"\1", local[1:-1])
        domains = {domain, *_in_unicode(domain)}
        self.needles = tuple(filter(None, (_longest_word(local), _common_word(domains))))
        """Small letters and digits that each spelling has, in no matter what encoding."""
        local, host = _spelled(local), _spelled("@") + _either(domains)
        quoted = f"{_QUOTE}{local}{_QUOTE}{host}"
        self._in_text, self._in_key = (
            re.compile(f"(?:{before}{local}{host}|{quoted}){after}", re.IGNORECASE)
            for before, after in ((_BEFORE, _AFTER), (_BEFORE_IN_KEY, _AFTER_IN_KEY))
        )

    def __repr__(self) -> str:
        return "<Person>"

    def is_at(self, address: Any) -> bool:
        """Return whether a text is the address, perhaps with a name."""
        if not isinstance(address, str) or not self._may_be_in(address):
            return False
        try:
            return mailbox(address, "address") == self.address
        except MessageError:
            return bare_address(address.strip()).lower() == self.address

    def is_in(self, value: Any) -> bool:
        """Return whether a text, or JSON, mentions the address."""
        return bool(self.taken_out_of(value) != value)

    def taken_out_of(self, value: Any) -> Any:
        """Return a text, or JSON, without the address; other addresses that end with it stay."""
        if isinstance(value, str):
            if not self._may_be_in(value):
                return value
            return FORGOTTEN if self.is_at(value) else self._in_text.sub(FORGOTTEN, value)
        if isinstance(value, Mapping):
            return {
                self.taken_out_of(name): self.taken_out_of_file_name(each)
                if name == "filename" and isinstance(each, str)
                else self.taken_out_of(each)
                for name, each in value.items()
            }
        if isinstance(value, list):
            return [self.taken_out_of(each) for each in value]
        return value

    def taken_out_of_address(self, address: str) -> str:
        """Return :data:`FORGOTTEN` for the address; of others, only their names may change."""
        if self.is_at(address):
            return FORGOTTEN
        if not self._may_be_in(address):
            return address
        spec = bare_address(address)
        try:
            mailbox(spec, "address")
        except MessageError:  # several in one, by esp_extra or a receiver of pre_send
            return self._in_text.sub(FORGOTTEN, address)
        name = address.removesuffix(f"<{spec}>")
        return self._in_text.sub(FORGOTTEN, name) + address[len(name) :]

    def taken_out_of_key(self, key: str) -> str:
        """Return an idempotency key without the address, whatever joins it to what is before."""
        return self._in_key.sub(FORGOTTEN, key)

    def taken_out_of_file_name(self, name: str) -> str:
        """Return the name of a file without the address, also where only the suffix follows it."""
        stem, dot, suffix = name.rpartition(".")
        if self._in_key.search(stem):
            return self._in_key.sub(FORGOTTEN, stem) + dot + suffix
        return str(self.taken_out_of(name))

    def _may_be_in(self, text: str) -> bool:
        lower = text.lower()
        return all(needle in lower for needle in self.needles)


def _in_unicode(domain: str) -> set[str]:
    """Return the forms of a domain that are not ASCII."""
    if "xn--" not in domain:
        return set()
    import idna  # comes with requests; rarely needed

    try:
        readable = idna.decode(domain)
    except (idna.IDNAError, UnicodeError):
        return set()
    return {unicodedata.normalize(form, readable) for form in ("NFC", "NFD")}


def _longest_word(text: str) -> str:
    return max(_WORD.findall(text), key=len, default="")


def _common_word(domains: set[str]) -> str:
    """Return the longest label, or part of one, that all forms of a domain have."""
    words = [set(_WORD.findall(_without_idna(domain))) for domain in domains]
    return max(sorted(set.intersection(*words)), key=len, default="")


def _without_idna(domain: str) -> str:
    labels = domain.split(".")
    return ".".join(each for each in labels if each.isascii() and not each.startswith("xn--"))


def _either(texts: set[str]) -> str:
    return f"(?:{'|'.join(map(_spelled, sorted(texts)))})"


def _spelled(text: str) -> str:
    """Return a pattern for a text as it is, in a URL, in HTML, or in JSON."""
    return "".join(map(_spelled_character, text))


def _spelled_character(character: str) -> str:
    if character.isascii() and character.isalnum():
        return character
    # Of a letter that is not ASCII, an encoding of the capital does not look like its own.
    cases = [each for each in (character, character.upper()) if len(each) == 1]
    ways = [way for each in dict.fromkeys(cases) for way in _encoded(each)]
    return f"(?:{'|'.join(dict.fromkeys(ways))})"


def _encoded(character: str) -> list[str]:
    code = ord(character)
    return [
        re.escape(character),
        # Also where a URL stands in another one.
        "".join(f"%(?:25)*{byte:02X}" for byte in character.encode()),
        rf"&\#0*{code};",
        rf"&\#x0*{code:x};",
        *(rf"\\u{unit}" for unit in [f"{code:04x}"] if code <= 0xFFFF),
        *([rf"&{_NAMES[character]}"] if character in _NAMES else []),
        *([re.escape(html.escape(character))] if html.escape(character) != character else []),
    ]
