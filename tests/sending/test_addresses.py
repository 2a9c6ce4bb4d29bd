"""Addresses: what is taken, in which form, and what is refused."""

import pytest
from django.utils.functional import lazystr

from truncus_django.api.errors import InvalidAddress
from truncus_django.sending.addresses import address, address_list


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("ann@example.com", "ann@example.com"),
        (" ann@example.com ", "ann@example.com"),
        ("<ann@example.com>", "ann@example.com"),
        ("o'hara+shop@example.com", "o'hara+shop@example.com"),
        ('"ann smith"@example.com', '"ann smith"@example.com'),
        ("Ann <ann@example.com>", "Ann <ann@example.com>"),
        ("Jörg Müller <j@example.com>", "Jörg Müller <j@example.com>"),
        ("山田太郎 <t@example.com>", "山田太郎 <t@example.com>"),
        ("J. Doe <j@example.com>", '"J. Doe" <j@example.com>'),
        ('"Doe, Jane" <j@example.com>', '"Doe, Jane" <j@example.com>'),
        (r'"The \"Boss\" \\ Co" <j@example.com>', r'"The \"Boss\" \\ Co" <j@example.com>'),
        ("Ann (Sales) <ann@example.com>", '"Ann (Sales)" <ann@example.com>'),
        ("[Shop] Orders <o@example.com>", '"[Shop] Orders" <o@example.com>'),
        ("=?utf-8?q?J=C3=B6rg?= <j@example.com>", "Jörg <j@example.com>"),
        ("=?utf-8?q?Doe=2C_Jane?= <j@example.com>", '"Doe, Jane" <j@example.com>'),
        ('"two  spaces" <t@example.com>', '"two  spaces" <t@example.com>'),
        # Dots at the ends of a local part, and two in a row, are valid in quotes alone.
        ("a..b@kunde.test", '"a..b"@kunde.test'),
        ("Ann <ann.@kunde.test>", 'Ann <"ann."@kunde.test>'),
        (".@kunde.test", '"."@kunde.test'),
    ],
)
def test_address_is_taken(written, taken):
    assert address(written, "to") == taken


@pytest.mark.parametrize(
    ("domain", "ascii_domain"),
    [
        ("münchen.example", "xn--mnchen-3ya.example"),
        ("faß.example", "xn--fa-hia.example"),  # IDNA 2003 made "fass" of it, another domain
        ("例え.example", "xn--r8jz45g.example"),
        ("MÜNCHEN.example", "xn--mnchen-3ya.example"),
    ],
)
def test_international_domain_is_encoded_by_idna_2008(domain, ascii_domain):
    assert address(f"ann@{domain}", "to") == f"ann@{ascii_domain}"
    assert address(f"Ann <ann@{domain}>", "to") == f"Ann <ann@{ascii_domain}>"


def test_lazy_address_is_taken():
    assert address(lazystr("Ann <ann@example.com>"), "to") == "Ann <ann@example.com>"


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "malformed"),
        ("ann", "nothing after"),
        ("ann@", "malformed"),
        ("@kunde.test", "malformed"),
        ("ann@kunde.test\nBcc: eve@kunde.test", "line break"),
        ("Ann\r <ann@kunde.test>", "line break"),
        ("Ann\0 <ann@kunde.test>", "control character"),
        ("=?utf-8?q?Ann=0ABcc=3A_eve?= <ann@kunde.test>", "line break"),
        ("Ann\ud800 <ann@kunde.test>", "half a character"),
        ("=?utf-8?q?=FF?= <ann@kunde.test>", "half a character"),
        ("=?utf-8?q?eve?=@kunde.test", "encoded word"),
        ("Ann <=?utf-8?q?eve=40other.test=3E?=@kunde.test>", "encoded word"),
        ("ann@kunde.test, bob@kunde.test", "an item of its own"),
        ("Doe, Jane <jane@kunde.test>", "quote names with commas"),
        ("ann@kunde.test (Ann)", "comment"),
        ("undisclosed-recipients:;", "an item of its own"),
        ("jörg@kunde.test", "ASCII"),
        ("ann@ku_nde.test", "no host name"),
        ("ann@-kunde.test", "no host name"),
        ("ann@kunde..test", "malformed"),
        ("ann@[127.0.0.1]", "no host name"),
        ("ann@\u2024.test", "cannot exist"),
        ("a" * 65 + "@kunde.test", "longer"),
        ("annette@" + "kunde." * 41 + "test", "longer"),
        ("(" * 3000 + "ann@kunde.test", "malformed"),
    ],
)
def test_malformed_address_is_refused_with_its_place_and_without_itself(written, reason):
    with pytest.raises(InvalidAddress, match=reason) as caught:
        address(written, "cc", 1)
    assert "'cc', number 2," in str(caught.value)
    assert "kunde" not in repr(caught.value)


@pytest.mark.parametrize("value", [None, 5, b"ann@kunde.test", ("Ann", "ann@kunde.test")])
def test_address_of_another_type_is_refused(value):
    with pytest.raises(InvalidAddress, match="give a string"):
        address(value, "from")


def test_longest_local_part_is_taken():
    assert address("a" * 64 + "@example.com", "to") == "a" * 64 + "@example.com"


def test_long_name_does_not_count_as_address():
    assert address(f"{'n' * 300} <ann@example.com>", "to") == f"{'n' * 300} <ann@example.com>"


@pytest.mark.parametrize(
    ("header", "addresses"),
    [
        ("a@example.com", ["a@example.com"]),
        ("a@example.com, Bob <b@example.com>,", ["a@example.com", "Bob <b@example.com>"]),
        ('"Doe, J" <j@example.com>, b@example.com', ['"Doe, J" <j@example.com>', "b@example.com"]),
        ("=?utf-8?q?Doe=2C_J?= <j@example.com>", ['"Doe, J" <j@example.com>']),
        ("Ann (A) <a@example.com>", ['"Ann (A)" <a@example.com>']),
    ],
)
def test_header_is_read_as_a_list_of_addresses(header, addresses):
    assert address_list(header, "Reply-To") == addresses


@pytest.mark.parametrize(
    "header", ["", " , ", "a@kunde.test, b", "Team: a@kunde.test, b@kunde.test;"]
)
def test_header_with_anything_but_addresses_is_refused(header):
    with pytest.raises(InvalidAddress, match="'Reply-To'") as caught:
        address_list(header, "Reply-To")
    assert "kunde" not in repr(caught.value)


def test_an_address_for_a_name_is_quoted():
    assert address("ann@example.com <ann@example.com>", "to") == (
        '"ann@example.com" <ann@example.com>'
    )
