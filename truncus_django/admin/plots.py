"""Plots as SVG, drawn on the server: no script, colours from the style sheet, a title to each bar.

Numbers in, markup out; every text is escaped.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from truncus_django.templatetags.truncus_admin import percent

WIDE, NARROW = 1120, 545
"""Widths, about those that the page gives them, so that all texts are of one size."""
HEIGHT = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 6, 10, 24
_PLOT_HEIGHT = HEIGHT - _TOP - _BOTTOM
_X_LABEL_WIDTH = 100
_MOST_STEPS = 5
_numbers = count(1)


@dataclass(frozen=True)
class Stack:
    """One layer of bars. ``kind`` is the colour, as a CSS class."""

    name: str
    kind: str
    values: Sequence[int]


@dataclass(frozen=True)
class Line:
    """One line of shares, 0 to 1; ``None`` interrupts it."""

    name: str
    kind: str
    values: Sequence[float | None]


def bars(
    title: str, labels: Sequence[str], stacks: Sequence[Stack], *, width: int = WIDE
) -> SafeString:
    """Return stacked bars, one for each label, in a plot of so many units."""
    totals = [sum(stack.values[index] for stack in stacks) for index in range(len(labels))]
    top, step = scale(max(totals, default=0))
    slot = _slot(width, labels)
    bar = max(1.0, slot * 0.72)
    parts = [_y_axis(width, top, step, _number), _x_axis(width, labels)]
    for index, label in enumerate(labels):
        x, base = _LEFT + index * slot + (slot - bar) / 2, 0
        told = [f"{stack.name} {_number(stack.values[index])}" for stack in stacks]
        parts.append(f"<g><title>{escape(label)}: {escape(', '.join(told))}</title>")
        parts.append(_rect("plot-hover", _LEFT + index * slot, _TOP, slot, _PLOT_HEIGHT))
        for stack in stacks:
            value = stack.values[index]
            if value > 0:
                height = value / top * _PLOT_HEIGHT
                y = _y((base + value) / top)
                parts.append(_rect(f"plot-bar plot-{escape(stack.kind)}", x, y, bar, height))
                base += value
        parts.append("</g>")
    told_totals = [f"{stack.name} {_number(sum(stack.values))}" for stack in stacks]
    return _figure(title, width, _description(labels, told_totals), stacks, parts)


def lines(
    title: str, labels: Sequence[str], drawn: Sequence[Line], *, width: int = NARROW
) -> SafeString:
    """Return lines of shares over the labels, in a plot of so many units."""
    known = [value for line in drawn for value in line.values if value is not None]
    top, step = scale(max(known, default=0.0) * 100, least=1.0)
    slot = _slot(width, labels)
    parts = [_y_axis(width, top, step, _percent), _x_axis(width, labels)]
    for line in drawn:
        points = [
            None if value is None else (_LEFT + (index + 0.5) * slot, _y(value * 100 / top))
            for index, value in enumerate(line.values)
        ]
        kind = escape(line.kind)
        for run in _runs(points):
            if len(run) == 1:
                parts.append(f'<circle class="plot-dot plot-{kind}" {_at(*run[0])} r="3"/>')
            else:
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in run)
                parts.append(f'<polyline class="plot-line plot-{kind}" points="{path}"/>')
    for index, label in enumerate(labels):
        told = [
            f"{line.name} {percent(value)}"
            for line in drawn
            if (value := line.values[index]) is not None
        ]
        parts.append(f"<g><title>{escape(label)}: {escape(', '.join(told) or '–')}</title>")
        parts.append(_rect("plot-hover", _LEFT + index * slot, _TOP, slot, _PLOT_HEIGHT))
        parts.append("</g>")
    told_ends = [
        f"{line.name} {percent(min(values))}–{percent(max(values))}"
        for line in drawn
        if (values := [value for value in line.values if value is not None])
    ]
    return _figure(title, width, _description(labels, told_ends), drawn, parts)


def scale(highest: float, *, least: float = 4.0) -> tuple[float, float]:
    """Return the top of an axis and the step between its marks, both round numbers.

    >>> scale(87), scale(1234), scale(0)
    ((100, 20), (1250, 250), (4, 1))
    """
    highest = max(highest, least)
    rough = highest / _MOST_STEPS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    steps = (factor * magnitude for factor in (1, 2, 2.5, 5, 10))
    step = next(step for step in steps if step >= rough * (1 - 1e-9))
    if least >= _MOST_STEPS - 1 and step < 1:
        step = 1.0  # what is counted is whole
    return _whole(math.ceil(highest / step - 1e-9) * step), _whole(step)


# The parts --------------------------------------------------------------------------------------


def _figure(
    title: str,
    width: int,
    description: str,
    series: Sequence[Stack | Line],
    parts: Sequence[str],
) -> SafeString:
    """Return a figure whose name and description are read out, with a legend below its name."""
    number = next(_numbers)
    legend = "".join(
        f'<li><span class="plot-key plot-{escape(one.kind)}"></span>{escape(one.name)}</li>'
        for one in series
    )
    return format_html(
        '<figure class="truncus-plot"><figcaption>{title}</figcaption>'
        '<ul class="plot-legend" aria-hidden="true">{legend}</ul>'
        '<svg viewBox="0 0 {width} {height}" role="img" '
        'aria-labelledby="plot-{number}-title plot-{number}-desc">'
        '<title id="plot-{number}-title">{title}</title>'
        '<desc id="plot-{number}-desc">{description}</desc>{parts}</svg></figure>',
        title=title,
        legend=mark_safe(legend),  # noqa: S308  escaped above
        width=width,
        height=HEIGHT,
        number=number,
        description=description,
        parts=mark_safe("".join(parts)),  # noqa: S308  escaped where it was made
    )


def _description(labels: Sequence[str], facts: Sequence[str]) -> str:
    if not labels:
        return _("Nothing to show.")
    return f"{labels[0]} – {labels[-1]}: {'; '.join(facts)}"


def _y_axis(width: int, top: float, step: float, shown: Callable[[float], str]) -> str:
    parts = []
    for index in range(round(top / step) + 1):
        value = index * step
        y = _y(value / top)
        parts.append(
            f'<line class="plot-{"axis" if index == 0 else "grid"}" x1="{_LEFT}" '
            f'x2="{width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="plot-text" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(shown(value))}</text>"
        )
    return "".join(parts)


def _x_axis(width: int, labels: Sequence[str]) -> str:
    """Return as many of the labels as there is room for, evenly spaced."""
    slot = _slot(width, labels)
    step = max(1, math.ceil(_X_LABEL_WIDTH / slot))
    return "".join(
        f'<text class="plot-text" x="{_LEFT + (index + 0.5) * slot:.1f}" y="{HEIGHT - 7}" '
        f'text-anchor="middle">{escape(label)}</text>'
        for index, label in enumerate(labels)
        if (len(labels) - 1 - index) % step == step // 2
    )


def _slot(width: int, labels: Sequence[str]) -> float:
    """Return the width that each label has."""
    return (width - _LEFT - _RIGHT) / max(1, len(labels))


def _runs(
    points: Sequence[tuple[float, float] | None],
) -> Iterator[list[tuple[float, float]]]:
    """Yield the stretches of points without a gap."""
    run: list[tuple[float, float]] = []
    for point in [*points, None]:
        if point is not None:
            run.append(point)
        elif run:
            yield run
            run = []


def _rect(kind: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
    )


def _at(x: float, y: float) -> str:
    return f'cx="{x:.1f}" cy="{y:.1f}"'


def _y(share: float) -> float:
    return _TOP + (1 - share) * _PLOT_HEIGHT


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f")


def _percent(value: float) -> str:
    return f"{value:g} %"


def _whole(value: float) -> float:
    return int(value) if float(value).is_integer() else value
