"""The plots: well-formed SVG, to scale, told in words as well, and nothing in them runs."""

from xml.etree import ElementTree

import pytest

from truncus_django.admin.plots import Line, Stack, bars, lines, scale

SVG = "{http://www.w3.org/2000/svg}"


def parsed(markup: str) -> ElementTree.Element:
    """Return the figure, which must be well-formed."""
    return ElementTree.fromstring(
        markup.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    )


def rects(figure: ElementTree.Element, kind: str) -> list[dict[str, str]]:
    return [
        rect.attrib for rect in figure.iter(f"{SVG}rect") if kind in rect.attrib["class"].split()
    ]


@pytest.mark.parametrize(
    ("highest", "top", "step"),
    [
        (0, 4, 1),
        (3, 4, 1),
        (5, 5, 1),
        (6, 6, 2),
        (87, 100, 20),
        (103, 125, 25),
        (1234, 1250, 250),
        (1_000_000, 1_000_000, 200_000),
    ],
)
def test_axes_end_at_round_numbers(highest, top, step):
    assert scale(highest) == (top, step)


@pytest.mark.parametrize("highest", [0.1, 1, 7, 33.3, 99, 100])
def test_axes_of_shares_reach_over_the_highest(highest):
    top, step = scale(highest, least=1.0)
    assert top >= highest
    assert 2 <= round(top / step) <= 6


def test_bars_are_as_high_as_their_numbers():
    figure = parsed(
        bars(
            "Mails",
            ["Mon", "Tue"],
            [Stack("good", "good", [100, 50]), Stack("bad", "bad", [0, 50])],
        )
    )
    good, bad = rects(figure, "plot-good"), rects(figure, "plot-bad")

    assert float(good[0]["height"]) == 2 * float(good[1]["height"])
    assert len(bad) == 1  # none for nothing
    assert float(bad[0]["y"]) + float(bad[0]["height"]) == pytest.approx(float(good[1]["y"]))


def test_a_plot_is_told_in_words():
    figure = parsed(bars("Mails", ["Mon", "Tue"], [Stack("good", "good", [1, 2])]))
    svg = figure.find(f"{SVG}svg")

    assert svg is not None
    assert svg.attrib["role"] == "img"
    title, description = svg.attrib["aria-labelledby"].split()
    texts = {one.attrib["id"]: one.text for one in svg if "id" in one.attrib}
    assert texts == {title: "Mails", description: "Mon – Tue: good 3"}
    hints = [group.find(f"{SVG}title").text for group in svg.iter(f"{SVG}g")]
    assert hints == ["Mon: good 1", "Tue: good 2"]


def test_two_plots_have_names_of_their_own():
    one, two = (parsed(bars("Mails", ["Mon"], [])) for _ in range(2))
    ids = [{el.attrib["id"] for el in plot.iter() if "id" in el.attrib} for plot in (one, two)]
    assert not ids[0] & ids[1]


def test_a_line_is_interrupted_where_nothing_is_known():
    figure = parsed(
        lines(
            "Opened", list("abcdef"), [Line("opened", "opened", [0.1, 0.2, None, 0.3, None, 0.4])]
        )
    )

    assert len(list(figure.iter(f"{SVG}polyline"))) == 1
    assert len(list(figure.iter(f"{SVG}circle"))) == 2


def test_nothing_can_be_plotted():
    for figure in (
        bars("x", [], []),
        lines("x", [], []),
        lines("x", ["a"], [Line("l", "k", [None])]),
    ):
        assert parsed(figure).find(f"{SVG}svg") is not None


def test_texts_are_escaped_and_nothing_runs():
    hostile = "<script>alert('x')</script>\"&"
    for figure in (
        bars(hostile, [hostile], [Stack(hostile, hostile, [1])]),
        lines(hostile, [hostile, "b"], [Line(hostile, hostile, [0.5, 0.2])]),
    ):
        names = {element.tag.removeprefix(SVG) for element in parsed(figure).iter()}
        assert "script" not in names
        assert not [
            name for element in parsed(figure).iter() for name in element.attrib
            if name.startswith("on") or name == "style"
        ]  # fmt: skip
