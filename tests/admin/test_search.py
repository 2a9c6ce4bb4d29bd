"""What the search of the list takes for words, phrases and addresses, and what they find."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.admin.pages import LOG, make, shown
from truncus_django.admin.search import search_terms
from truncus_django.log.search_text import search_text

NAMES = ("", "Ann", "Ann Bauer", '"Bauer, Ann"', '"Ann <Sales>"', "Größe")


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("Order ANN", [{"order"}, {"ann"}]),
        ('"On its way"', [{"on its way"}]),
        ('ann "on its way" 42', [{"ann"}, {"on its way"}, {"42"}]),
        ('"one""two"', [{"one"}, {"two"}]),
        ('"on its', [{'"on'}, {"its"}]),
        ('on its"', [{"on"}, {'its"'}]),
        ('5" nail 6" nail', [{'5"'}, {"nail"}, {'6"'}, {"nail"}]),
        ('""', []),
        ('"" ann', [{"ann"}]),
        ('" , "', []),
        ("Ann <Ann@Example.org>", [{"ann@example.org"}]),
        ("<ann@example.org>", [{"ann@example.org"}]),
        ('"Bauer, Ann" <ann@example.org>', [{"ann@example.org"}]),
        ("Ann <ann@example.org> invoice", [{"ann@example.org"}, {"invoice"}]),
        (
            '"Bauer, Ann" <ann@example.org>, Ben Lee <ben@example.org>',
            [{"ann@example.org"}, {"ben@example.org"}],
        ),
        ("ann@example.org, ben@example.org", [{"ann@example.org"}, {"ben@example.org"}]),
        ("@example.org", [{"@example.org"}]),
        ("Ann <ann>", [{"ann"}, {"<ann>"}]),
        (
            "ann@bücher.example",
            [{"ann@bücher.example", "ann@xn--bcher-kva.example"}],
        ),
        ("Bauer, Ann <ann@example.org>", [{"ann@example.org"}]),
        ("“Bauer, Ann” <ann@example.org>", [{"ann@example.org"}]),
        (
            "ben@example.org, Bauer, Ann <ann@example.org>",
            [{"ben@example.org"}, {"ann@example.org"}],
        ),
        ("(ann@example.org).", [{"ann@example.org"}]),
        ("mailto:ann@example.org", [{"ann@example.org"}]),
        ("<mailto:Ann@example.org>", [{"ann@example.org"}]),
        ("mailto:ann@example.org?subject=Your,order", [{"ann@example.org"}]),
        ("<mailto:ann@example.org?subject=x>", [{"ann@example.org"}]),
        ("mailto:?to=ann@example.org", [{"mailto:?to=ann@example.org"}]),
        ("'ann@example.org';[ben@example.org]", [{"ann@example.org"}, {"ben@example.org"}]),
        ("ann@example.org,ben@example.org", [{"ann@example.org"}, {"ben@example.org"}]),
        (
            '"ann@bücher.example"',
            [{"ann@bücher.example", "ann@xn--bcher-kva.example"}],
        ),
        ("“on its way” 42", [{"on its way"}, {"42"}]),
        ("„on its way“", [{"on its way"}]),
        ("“on its", [{"“on"}, {"its"}]),
        ("", []),
    ],
)
def test_search_terms(term, expected):
    assert list(search_terms(term)) == expected


def finds(term: str, text: str) -> bool:
    return all(any(each in text for each in spellings) for spellings in search_terms(term))


locals_ = st.text(string.ascii_letters + string.digits + "+-_", min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<@"), max_size=60)


@given(locals_, st.sampled_from(NAMES), st.sampled_from(NAMES), st.booleans())
def test_an_address_is_found_with_any_name(local, recorded_name, name, in_capitals):
    address = f"{local}@example.org"
    recorded = f"{recorded_name} <{address}>" if recorded_name else address
    typed = f"{name} <{address.upper() if in_capitals else address}>"
    assert finds(typed, search_text([recorded], "Your order", {}))


@given(texts, texts, st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=100))
def test_words_and_phrases_of_the_subject_and_values_of_the_metadata_are_found(
    subject, other, number
):
    text = search_text(["ann@example.org"], subject, {"order": number, "note": other})
    assert finds(number, text)
    if '"' not in subject:
        assert finds(subject, text)
        assert not subject.strip() or finds(f'"{subject}"', text)


@given(st.text(max_size=200))
def test_any_text_can_be_searched_for(term):
    found = list(search_terms(term))
    assert all(each and each == each.lower() for spellings in found for each in spellings)
    assert bool(found) == any(char not in ',;"“”„' and not char.isspace() for char in term)


@pytest.mark.django_db
class TestList:
    @pytest.fixture(autouse=True)
    def _emails(self) -> None:
        make(subject="Other", to=["Ben <ben@example.org>"], metadata={"order": "lk-4"})
        make(
            subject="Your order is on its way",
            to=["Ann Bauer <ann@example.org>", "ann@xn--bcher-kva.example"],
            metadata={"order": "LK-48213", "customer": "Blue Kettle Ltd"},
        )

    @pytest.mark.parametrize(
        "term",
        [
            "LK-48213",
            "lk-48",
            '"blue kettle"',
            "Ann <ann@example.org>",
            "Somebody Else <ann@example.org>",
            '"Bauer, Ann" <ANN@example.org>',
            "ann@bücher.example",
            '"on its way" lk-48213',
            '"Ann Bauer"',
        ],
    )
    def test_finds(self, admin_client, term):
        assert shown(admin_client.get(LOG, {"q": term})) == ["Your order is on its way"]

    @pytest.mark.parametrize(
        "term",
        ['"way its on"', '"on its', "Ann <nobody@example.org>", "LK-48214", '""', "order:", ","],
    )
    def test_finds_nothing(self, admin_client, term):
        assert shown(admin_client.get(LOG, {"q": term})) == []

    @pytest.mark.parametrize("char", ["x", "„", "<a@", '"', ",@", "%"])
    def test_a_long_text_is_searched_for_by_its_beginning(self, admin_client, char):
        assert admin_client.get(LOG, {"q": char * 60_000}).status_code == 200
        long = make(subject="y" * 900)

        assert shown(admin_client.get(LOG, {"q": "y" * 900 + " " * 60_000})) == [long.subject]

    def test_the_search_stays_in_its_field(self, admin_client):
        page = admin_client.get(LOG, {"q": '"on its way"'}).text
        assert 'value="&quot;on its way&quot;"' in page
