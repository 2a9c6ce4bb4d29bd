"""What the search of the admin looks in."""

from truncus_django.log.search_text import LONGEST_VALUE, LONGEST_VALUES, search_text


def test_recipients_subject_and_values_of_the_metadata_in_lower_case():
    text = search_text(["Ann <ANN@example.org>"], "Your Order", {"Order": "LK-42", "shop": "Tea"})
    assert text == "ann <ann@example.org> your order lk-42 tea"


def test_long_values_are_left_out():
    text = search_text(
        [], "s", {"a": "x" * LONGEST_VALUE, "b": "y" * (LONGEST_VALUE + 1), "c": "z"}
    )
    assert text == f" s {'x' * LONGEST_VALUE} z".strip()


def test_values_are_left_out_whole_where_there_is_no_more_room():
    values = {str(number): f"{number:090}" for number in range(6)}
    text = search_text([], "s", {**values, "last": "42"})
    assert text.split() == ["s", *list(values.values())[:5], "42"]
    assert sum(map(len, text.split()[1:])) <= LONGEST_VALUES


def test_empty_values_leave_no_gap():
    assert search_text(["a@b.c"], "s", {"empty": "", "full": "x"}) == "a@b.c s x"
