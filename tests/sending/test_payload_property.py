"""Any message either becomes a payload that carries it whole, or a clear error.

What a payload holds is read back without the package: with the standard library's own address
parser and base64, and by what Django itself would have written. ``HYPOTHESIS_PROFILE=thorough``
tries thousands of messages, other ones each time.
"""

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage as StandardMessage
from email.message import MIMEPart
from email.mime.base import MIMEBase
from email.policy import default as policy
from typing import Any

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils.functional import lazystr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from truncus_django.api.errors import MessageError
from truncus_django.conf import Settings
from truncus_django.message import OPTION_NAMES
from truncus_django.sending.payload import build_payload

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

settings.register_profile("quick", max_examples=100, derandomize=True, deadline=None, database=None)
settings.register_profile(
    "thorough",
    max_examples=3000,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


# Messages, and beside each part what it means -----------------------------------------------------


@dataclass
class Written:
    """An address as a user writes it, and what it means; a name of None is left open."""

    text: Any
    name: str | None
    spec: str | None


@dataclass
class File:
    """An attachment as a user gives it, and what a reader must find."""

    given: Any
    octets: bytes | None
    name: str | None = None


@dataclass
class Case:
    sender: Written
    to: list[Written]
    cc: list[Written] = field(default_factory=list)
    bcc: list[Written] = field(default_factory=list)
    reply_to: list[Written] = field(default_factory=list)
    subject: Any = "Subject"
    body: Any = ""
    html: Any = None
    headers: dict[str, Any] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    alternatives: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def message(self) -> EmailMultiAlternatives:
        message = EmailMultiAlternatives(
            self.subject,
            self.body,
            self.sender.text,
            [address.text for address in self.to],
            cc=[address.text for address in self.cc],
            bcc=[address.text for address in self.bcc],
            reply_to=[address.text for address in self.reply_to],
            headers=self.headers,
        )
        if self.html is not None:
            message.attach_alternative(self.html, "text/html")
        message.alternatives += self.alternatives
        message.attachments += [file.given for file in self.files]
        for name, value in self.options.items():
            setattr(message, name, value)
        return message

    def secrets(self) -> Iterator[str]:
        """Yield what no error may tell; texts too short to be told apart are left out."""
        for address in (self.sender, *self.to, *self.cc, *self.bcc, *self.reply_to):
            yield str(address.text)
        yield from (str(value) for value in (self.subject, self.body, self.html))
        yield from (str(value) for value in self.headers.values())
        yield from (str(alternative) for alternative in self.alternatives)


line = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30)
words = line.map(lambda text: " ".join(text.replace("=?", "").split()))
odd_text = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="ab \"'(),:;<>@[]\\.=?é€\t\r\n\0\x7f\ud800\u2028", max_size=40),
    st.sampled_from(
        ["", " ", "=?utf-8?q?J=C3=B6rg?=", "=?utf-8?b?w4k=?=", "=?x?q?a=0Ab?=", "a" * 300]
    ),
)


@st.composite
def ordinary_addresses(draw: st.DrawFn) -> Written:
    name, spec = draw(words), draw(st.emails())
    wire_formats = {"bare": spec, "angle": f"<{spec}>"}
    if name:
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        wire_formats["quoted"] = f'"{escaped}" <{spec}>'
        wire_formats["encoded"] = f"{Header(name, 'utf-8', maxlinelen=10_000).encode()} <{spec}>"
        if name.replace(" ", "").isalnum():
            wire_formats["plain"] = f"{name} <{spec}>"
    wire_format = draw(st.sampled_from(sorted(wire_formats)))
    text: Any = wire_formats[wire_format]
    if draw(st.booleans()):
        text = lazystr(text)
    return Written(text, "" if wire_format in {"bare", "angle"} else name, spec)


odd_address_texts = st.one_of(
    odd_text,
    st.builds("{} <{}>".format, odd_text, st.emails()),
    st.builds('"{}" <{}>'.format, odd_text, st.emails()),
    st.builds(
        "{}@{}".format, odd_text, st.sampled_from(["kunde.test", "faß.de", "例え.jp", "[::1]"])
    ),
    st.builds("{}, {}".format, st.emails(), st.emails()),
    st.sampled_from(
        [
            "Ann (Sales) <ann@kunde.test>",
            '"Doe, Jane" <jane@kunde.test>',
            "ann@kunde.test (Ann)",
            "team: ann@kunde.test, bob@kunde.test;",
            "undisclosed-recipients:;",
            '"a b"@kunde.test',
            "<ann@kunde.test",
            "(" * 3000 + "ann@kunde.test",
        ]
    ),
)
odd_addresses = st.one_of(
    ordinary_addresses(),
    odd_address_texts.map(lambda text: Written(text, None, None)),
    st.sampled_from([None, 5, b"ann@kunde.test", ("Ann", "ann@kunde.test")]).map(
        lambda value: Written(value, None, None)
    ),
)

filenames = st.one_of(
    st.just("a.txt"), st.just("rechnung-ä.pdf"), words.map(lambda text: text[:20])
)
CHARSETS = ["utf-8", "iso-8859-1", "utf-16", "shift_jis", "koi8-r"]
unicode_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@st.composite
def ordinary_files(draw: st.DrawFn) -> File:
    name, octets, text = draw(filenames), draw(st.binary(max_size=40)), draw(unicode_text)
    wire_format = draw(st.sampled_from(["bytes", "text", "part", "text part", "base", "message"]))
    if wire_format == "bytes":
        return File((name, octets, "application/pdf"), octets, name)
    if wire_format == "text":
        return File((name, text, "text/csv; header=present"), text.encode(), name)
    if wire_format == "base":
        base = MIMEBase("application", "pdf")
        base.set_payload(base64.b64encode(octets).decode())
        base.add_header("Content-Transfer-Encoding", "base64")
        return File(base, octets)
    part = MIMEPart()
    if wire_format == "part":
        part.set_content(octets, "application", "pdf", filename="a.pdf")
        return File(part, octets, "a.pdf")
    if wire_format == "text part":
        flat = "".join(text.splitlines()) or "x"  # set_content() rewrites line breaks
        charset = draw(st.sampled_from([c for c in CHARSETS[:1] + CHARSETS[3:] if _fits(flat, c)]))
        part.set_content(flat, charset=charset)
        return File(part, (flat + "\n").encode(charset))
    inner = StandardMessage()
    inner["Subject"] = "Inner"
    inner.set_content(octets, "application", "pdf")
    return File((name, inner, "message/rfc822"), inner.as_bytes(), name)


def _fits(text: str, charset: str) -> bool:
    try:
        return text.encode(charset).decode(charset) == text
    except UnicodeError:
        return False


odd_files = st.one_of(
    ordinary_files(),
    st.tuples(
        st.one_of(st.none(), odd_text),
        st.one_of(st.none(), st.integers(), odd_text, st.binary(max_size=20), st.builds(object)),
        st.one_of(
            st.none(), odd_text, st.sampled_from(["text/plain", "application/json", "a/b/c"])
        ),
    ).map(lambda given: File(given, given[1] if isinstance(given[1], bytes) else None)),
    st.sampled_from([None, "a.txt", (), ("a.txt",), (1, 2, 3, 4)]).map(
        lambda given: File(given, None)
    ),
)

ordinary_cases = st.builds(
    Case,
    sender=ordinary_addresses(),
    to=st.lists(ordinary_addresses(), min_size=1, max_size=3),
    cc=st.lists(ordinary_addresses(), max_size=2),
    bcc=st.lists(ordinary_addresses(), max_size=2),
    reply_to=st.lists(ordinary_addresses(), max_size=2),
    subject=line.filter(str.strip),
    body=unicode_text.filter(bool),
    html=st.one_of(st.none(), unicode_text.filter(bool)),
    headers=st.dictionaries(
        st.sampled_from(["X-A", "X-B", "List-Unsubscribe"]),
        st.one_of(line, st.integers()),
        max_size=2,
    ),
    files=st.lists(ordinary_files(), max_size=2),
    options=st.fixed_dictionaries(
        {},
        optional={
            "metadata": st.dictionaries(line, line, max_size=2),
            "tenant_id": line.filter(bool),
            "send_at": st.datetimes(min_value=datetime(2027, 1, 1), timezones=st.just(UTC)),
            "track_opens": st.booleans(),
        },
    ),
)

odd_values = st.one_of(
    odd_text,
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(max_size=5),
    st.builds(object),
)
odd_parts: dict[str, st.SearchStrategy[Any]] = {
    "sender": odd_addresses.filter(lambda address: bool(address.text)),
    "to": st.lists(odd_addresses, max_size=2),
    "cc": st.lists(odd_addresses, max_size=2),
    "reply_to": st.lists(odd_addresses, max_size=2),
    "subject": odd_values,
    "body": odd_values,
    "html": st.one_of(odd_text, st.binary(max_size=5)),
    "headers": st.dictionaries(
        st.one_of(odd_text, st.sampled_from(["From", "To", "cc", "Reply-To", "Bcc", "X-A"])),
        st.one_of(odd_values, odd_address_texts),
        max_size=2,
    ),
    "files": st.lists(odd_files, max_size=2),
    "alternatives": st.lists(
        st.one_of(
            st.tuples(odd_values, st.sampled_from(["text/html", "text/x-amp-html", "TEXT/PLAIN"])),
            st.tuples(odd_values, odd_values),
            st.sampled_from([None, (), "abc"]),
        ),
        max_size=1,
    ),
    "options": st.dictionaries(
        st.sampled_from([*sorted(OPTION_NAMES - {"esp_extra"}), "tags"]),
        st.one_of(odd_values, st.dictionaries(odd_text, odd_values, max_size=2), st.datetimes()),
        max_size=2,
    ),
}


@st.composite
def odd_cases(draw: st.DrawFn) -> Case:
    """Return an ordinary message with one or two parts that are not."""
    names = draw(st.sets(st.sampled_from(sorted(odd_parts)), min_size=1, max_size=2))
    return replace(draw(ordinary_cases), **{name: draw(odd_parts[name]) for name in sorted(names)})


# Reading a payload back -----------------------------------------------------------------------


def read_addresses(value: str | list[str]) -> list[tuple[str, str]]:
    """Return (name, addr-spec) of each address, as the standard library reads them."""
    text = value if isinstance(value, str) else ", ".join(value)
    header: Any = policy.header_factory("To", text)
    assert not header.defects
    return [(address.display_name, address.addr_spec) for address in header.addresses]


def assert_addresses(value: str | list[str], written: list[Written]) -> None:
    wanted = [address for address in written if address.text]
    found = read_addresses(value)
    assert len(found) == len(wanted)
    for (name, spec), address in zip(found, wanted, strict=True):
        if address.spec is not None:
            assert (name, spec) == (address.name, Address(addr_spec=address.spec).addr_spec)


def assert_whole(case: Case, email: dict[str, Any]) -> None:
    """Check everything in ``email`` against what went into the message."""
    json.dumps(email, ensure_ascii=False, allow_nan=False).encode()
    given_headers = {name.lower(): value for name, value in case.headers.items()}
    if "from" not in given_headers:
        assert_addresses(email["from"], [case.sender])
    assert_addresses(email["to"], case.to)
    assert_addresses(email.get("cc", []), case.cc)
    assert_addresses(email.get("bcc", []), case.bcc)
    if "reply-to" not in given_headers:
        assert_addresses(email.get("reply_to", []), case.reply_to)
    for name, value in case.headers.items():
        if name.lower() not in {"from", "to", "cc", "reply-to"}:
            assert email["headers"][name] == str(value)
    assert email["subject"] == str(case.subject)
    if isinstance(case.body, str):
        assert email.get("text", "") == case.body
    if isinstance(case.html, str) and case.html:
        assert email["html"] == case.html
    assert_files(case.files, email.get("attachments", []))
    for name in ("tenant_id", "template_id", "track_opens", "track_clicks"):
        if case.options.get(name) is not None:
            assert as_text(email[name]) == as_text(case.options[name])
    for key, value in (case.options.get("metadata") or {}).items():
        assert email["metadata"][key] == as_text(value)


def as_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def assert_files(files: list[File], fields: list[dict[str, str]]) -> None:
    assert len(files) == len(fields)
    for file, found in zip(files, fields, strict=True):
        assert set(found) == {"filename", "content", "content_type"}
        assert found["filename"]
        if file.octets is not None:
            assert base64.b64decode(found["content"], validate=True) == file.octets
        if file.name:
            assert found["filename"] == file.name


# The properties -------------------------------------------------------------------------------


@settings(PROFILE)
@given(ordinary_cases)
def test_ordinary_message_is_carried_whole(case: Case) -> None:
    payload = build_payload(case.message(), Settings(), now=NOW)
    assert_whole(case, payload.email)
    assert payload.dropped == ()
    if "send_at" in case.options:
        told = datetime.fromisoformat(payload.email["send_at"])
        assert timedelta() <= case.options["send_at"] - told < timedelta(milliseconds=1)


@settings(PROFILE)
@given(odd_cases())
def test_odd_message_is_carried_whole_or_refused_without_telling_its_content(case: Case) -> None:
    try:
        payload = build_payload(case.message(), Settings(), now=NOW)
    except MessageError as exc:
        error = exc
    else:
        assert_whole(case, payload.email)
        return
    told = str(error)
    for name in case.headers:  # which header it is may be told
        told = told.replace(repr(name), "")
    assert error.message.endswith(".")
    assert not [text for text in case.secrets() if len(text) > 8 and text in told]


@settings(PROFILE)
@given(odd_cases())
def test_message_with_unsupported_parts_is_sent_without_them_and_says_so(case: Case) -> None:
    try:
        strict = build_payload(case.message(), Settings(), now=NOW)
    except MessageError:
        strict = None
    try:
        lenient = build_payload(case.message(), Settings(unsupported="warn"), now=NOW)
    except MessageError:
        assert strict is None
    else:
        assert bool(lenient.dropped) == (strict is None)


def fits_one_line(text: str) -> bool:
    """Whether an encoded header is not folded; Python 3.11 reads a space into folded names."""
    return len(text.encode()) <= 30


@settings(PROFILE)
@given(
    st.lists(
        ordinary_addresses().filter(lambda written: fits_one_line(written.name)),
        min_size=1,
        max_size=3,
    ),
    line.filter(str.strip).filter(fits_one_line),
)
def test_names_and_addresses_are_those_that_django_would_have_written(
    written: list[Written], subject: str
) -> None:
    message = EmailMessage(subject, "Body", "shop@example.com", [item.text for item in written])
    email = build_payload(message, Settings(), now=NOW).email
    mime = message.message()
    to, title = ("".join(str(mime[name]).splitlines()) for name in ("To", "Subject"))  # unfolded
    assert read_addresses(email["to"]) == read_addresses(to)
    assert email["subject"] == str(policy.header_factory("Subject", title))
