"""The plots: well-formed SVG, to scale, told in words as well, and nothing in them runs."""

from typing import Any
from xml.etree import ElementTree

import pytest
from django.template.loader import render_to_string

from truncus_django.admin.plots import Series, bars, lines, round_top

SVG = "{http://www.w3.org/2000/svg}"


def parsed(plot: dict[str, Any]) -> ElementTree.Element:
    """Return the figure, which must be well-formed."""
    markup = render_to_string("admin/truncus_django/email/plot.html", {"plot": plot}).strip()
    return ElementTree.fromstring(
        markup.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    )


def rects(figure: ElementTree.Element, kind: str) -> list[dict[str, str]]:
    return [
        rect.attrib for rect in figure.iter(f"{SVG}rect") if kind in rect.attrib["class"].split()
    ]


@pytest.mark.parametrize(
    ("highest", "top"),
    [(0, 2), (0.1, 2), (3, 4), (5, 6), (87, 100), (100, 100), (103, 120), (1_000_000, 1_000_000)],
)
def test_axes_end_at_round_numbers(highest, top):
    assert round_top(highest) == top


def test_bars_are_as_high_as_their_numbers():
    figure = parsed(
        bars(
            "Mails",
            ["Mon", "Tue"],
            [Series("good", "good", [100, 50]), Series("bad", "bad", [0, 50])],
        )
    )
    good, bad = rects(figure, "plot-good"), rects(figure, "plot-bad")

    assert float(good[0]["height"]) == 2 * float(good[1]["height"])
    assert len(bad) == 1  # none for nothing
    assert float(bad[0]["y"]) + float(bad[0]["height"]) == pytest.approx(float(good[1]["y"]))


def test_a_plot_is_told_in_words():
    figure = parsed(bars("Mails", ["Mon", "Tue"], [Series("good", "good", [1, 2])]))
    svg = figure.find(f"{SVG}svg")

    assert svg is not None
    assert svg.attrib["role"] == "img"
    assert svg.attrib["aria-label"] == "Mails, Mon – Tue: good 3"
    hints = [group.find(f"{SVG}title").text for group in svg.iter(f"{SVG}g")]
    assert hints == ["Mon: good 1", "Tue: good 2"]


def test_a_line_is_interrupted_where_nothing_is_known():
    figure = parsed(
        lines(
            "Opened", list("abcdef"), [Series("opened", "opened", [0.1, 0.2, None, 0.3, None, 0.4])]
        )
    )

    assert len(list(figure.iter(f"{SVG}polyline"))) == 1
    assert len(list(figure.iter(f"{SVG}circle"))) == 2


def test_nothing_can_be_plotted():
    for figure in (
        bars("x", [], []),
        lines("x", [], []),
        lines("x", ["a"], [Series("l", "k", [None])]),
    ):
        assert parsed(figure).find(f"{SVG}svg") is not None


def test_texts_are_escaped_and_nothing_runs():
    hostile = "<script>alert('x')</script>\"&"
    for figure in (
        bars(hostile, [hostile], [Series(hostile, hostile, [1])]),
        lines(hostile, [hostile, "b"], [Series(hostile, hostile, [0.5, 0.2])]),
    ):
        names = {element.tag.removeprefix(SVG) for element in parsed(figure).iter()}
        assert "script" not in names
        assert not [
            name for element in parsed(figure).iter() for name in element.attrib
            if name.startswith("on") or name == "style"
        ]  # fmt: skip
