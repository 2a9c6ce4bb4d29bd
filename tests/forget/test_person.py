"""One person's address in the ways that texts spell it."""

import pytest

from truncus_django.api.errors import InvalidAddress
from truncus_django.forget.person import Person
from truncus_django.sending.forgotten import FORGOTTEN

ANN = Person("ann@example.org")
IDN = Person("Ann <ann@bücher.example>")


@pytest.mark.parametrize(
    "text",
    [
        "ANN@Example.ORG",
        "Ann Lee <ann@example.org>",
        '"Lee, Ann" <ann@example.org>',
        '"ann"@example.org',
        " ann@example.org ",
    ],
)
def test_the_address_goes_in_any_form(text):
    assert ANN.is_at(text)
    assert ANN.taken_out_of(text) == ANN.taken_out_of_address(text) == FORGOTTEN


@pytest.mark.parametrize(
    "spelled",
    [
        "ann@example.org",
        "Ann@EXAMPLE.org",
        "ann%40example.org",
        "ann%2540example%2Eorg",
        "ann&#64;example.org",
        "ann&#x40;example&period;org",
        '"ann"@example.org',
        r"\"ann\"@example.org",
    ],
)
@pytest.mark.parametrize(
    "around",
    [
        "550 5.1.1 <{}>: unknown",
        "Write to {}.",
        "'{}'",
        "https://example.com/?e={}&x=1",
        "https://example.com/?next=%2Fme%3Fe%3D{}%26x",
        "mailto:{}",
        r"Name\n{}\n",
        "&lt;{}&gt;",
        "key:{}-42",
        "请联系{}谢谢",
        "ご連絡は{}まで。",
        "{}로 보내세요",
        "«{}»",
    ],
)
def test_the_address_goes_from_within_a_text(spelled, around):
    assert ANN.taken_out_of(around.format(spelled)) == around.format(FORGOTTEN)


@pytest.mark.parametrize(
    "other",
    [
        "joann@example.org",
        "jo.ann@example.org",
        "jo-ann@example.org",
        "jo_ann@example.org",
        "jo+ann@example.org",
        "o'ann@example.org",
        "éann@example.org",
        "ann+shop@example.org",
        "ann@example.org.uk",
        "ann@example.orgs",
        "ann@example.org-shop.example",
        "ann@shop.example.org",
        "ann@exampleXorg.net",
    ],
)
def test_others_stay(other):
    for text in (other, f"Write to {other}.", f"<{other}>", f"Ann <{other}>"):
        assert ANN.taken_out_of(text) == ANN.taken_out_of_address(text) == text
        assert not ANN.is_at(text)


def test_what_others_are_called_may_name_her():
    text = '"ann@example.org, by the shop" <jo=ann@example.org>'
    assert ANN.taken_out_of_address(text) == f'"{FORGOTTEN}, by the shop" <jo=ann@example.org>'


@pytest.mark.parametrize(
    "spelled",
    [
        "ann@bücher.example",
        "ann@BÜCHER.example",
        "ann@xn--bcher-kva.example",
        "ann@XN--BCHER-KVA.EXAMPLE",
        "ann@bu\u0308cher.example",
        "ann%40b%C3%BCcher.example",
        "ann@b&uuml;cher.example",
        r"ann@b\u00fccher.example",
        "ann%40B%C3%9CCHER.example",
        "ann@B&#220;CHER.example",
        r"ann@B\u00DCCHER.example",
    ],
)
def test_both_forms_of_a_domain_are_one(spelled):
    assert IDN.taken_out_of(f"to {spelled}, today") == f"to {FORGOTTEN}, today"
    assert Person("ann@xn--bcher-kva.example").address == IDN.address


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("ann@example.org, bob@example.net", f"{FORGOTTEN}, bob@example.net"),
        ("team: ann@example.org, bob@example.net;", f"team: {FORGOTTEN}, bob@example.net;"),
        ("ann@example.org (x)", f"{FORGOTTEN} (x)"),
    ],
)
def test_she_goes_from_what_is_not_one_address(text, without):
    assert ANN.taken_out_of_address(text) == without


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("ann@example.org.pdf", f"{FORGOTTEN}.pdf"),
        ("invoice-for-ann@example.org.pdf", f"invoice-for-{FORGOTTEN}.pdf"),
        ("joann@example.org.pdf", "joann@example.org.pdf"),
        ("of ann@example.org today.pdf", f"of {FORGOTTEN} today.pdf"),
        ("ann@example.org", FORGOTTEN),
    ],
)
def test_she_goes_from_the_name_of_a_file(name, without):
    assert ANN.taken_out_of([{"filename": name}]) == [{"filename": without}]


def test_a_plus_address_is_an_address_of_its_own():
    plus = Person("ann+shop@example.org")
    assert plus.taken_out_of("q=ann%2Bshop@example.org") == f"q={FORGOTTEN}"
    assert plus.taken_out_of("ann@example.org") == "ann@example.org"


def test_json_is_searched_in_names_and_values():
    value = {"ann@example.org": [1, {"to": "ANN@example.org"}], "n": None}
    assert ANN.taken_out_of(value) == {FORGOTTEN: [1, {"to": FORGOTTEN}], "n": None}
    assert ANN.is_in(value)
    assert not ANN.is_in({"joann@example.org": 1})


def test_no_repr_shows_it_and_a_malformed_one_is_refused():
    assert "ann" not in repr(ANN)
    with pytest.raises(InvalidAddress):
        Person("ann")
