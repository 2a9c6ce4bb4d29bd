"""Plots for the dashboard: what ``plot.html`` draws as SVG, computed from numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from truncus_django.templatetags.truncus_admin import percent, thousands

WIDE, NARROW = 1120, 545
"""Widths, about those on the page, so that all texts have the same size."""
HEIGHT = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 6, 10, 26
_PLOT_HEIGHT = HEIGHT - _TOP - _BOTTOM
_X_LABEL_WIDTH = 100


@dataclass(frozen=True)
class Series:
    """A value for each label: a count, or a share from 0 to 1; ``None`` for an unknown share.

    ``kind`` is the colour, as a CSS class.
    """

    name: str
    kind: str
    values: Sequence[Any]


def bars(title: str, labels: Sequence[str], stacks: Sequence[Series]) -> dict[str, Any]:
    """Return a plot with a bar of stacked counts for each label."""
    slot = _slot(WIDE, labels)
    totals = [sum(values) for values in zip(*(stack.values for stack in stacks), strict=True)]
    top = round_top(max(totals, default=0))
    drawn = []
    for place in range(len(labels)):
        end = 0
        for stack in stacks:
            if value := stack.values[place]:
                end += value
                y = _y(end / top)
                drawn.append(
                    {
                        "kind": stack.kind,
                        "x": _x(place + 0.14, slot),
                        "y": y,
                        "width": round(0.72 * slot, 1),
                        "height": round(_y((end - value) / top) - y, 1),
                    }
                )
    summary = [f"{stack.name} {thousands(sum(stack.values))}" for stack in stacks]
    axis = ["0", thousands(top // 2), thousands(top)]
    return _plot(title, WIDE, labels, stacks, thousands, axis, summary) | {"bars": drawn}


def lines(title: str, labels: Sequence[str], series: Sequence[Series]) -> dict[str, Any]:
    """Return a plot with a line of shares for each series; an unknown share interrupts it."""
    slot = _slot(NARROW, labels)
    known = [[value for value in line.values if value is not None] for line in series]
    top = round_top(100 * max((max(values) for values in known if values), default=0))
    drawn = []
    for line in series:
        places = enumerate(line.values)
        for is_known, run in groupby(places, key=lambda place: place[1] is not None):
            if is_known:
                points = [(_x(place + 0.5, slot), _y(100 * value / top)) for place, value in run]
                drawn.append({"kind": line.kind, "points": points})
    summary = [
        f"{line.name} {percent(min(values))}–{percent(max(values))}"
        for line, values in zip(series, known, strict=True)
        if values
    ]
    axis = ["0 %", f"{top // 2} %", f"{top} %"]
    return _plot(title, NARROW, labels, series, percent, axis, summary) | {"lines": drawn}


def round_top(highest: float) -> int:
    """Return the end of an axis: a round number, whose half is a whole number.

    >>> [round_top(highest) for highest in (0, 3, 87, 103)]
    [2, 4, 100, 120]
    """
    power: int = 10 ** max(0, len(str(int(highest))) - 2)
    factors = (2, 4, 6, 8, 10, 12, 16, 20, 30, 40, 60, 80, 100)
    return next(factor * power for factor in factors if factor * power >= highest)


def _plot(
    title: str,
    width: int,
    labels: Sequence[str],
    series: Sequence[Series],
    shown: Callable[[Any], str],
    axis: Sequence[str],
    summary: Sequence[str],
) -> dict[str, Any]:
    """Return what all plots have: axes, a legend, and texts for the pointer and screen readers.

    Args:
        shown: writes a value of a series.
        axis: what stands at the bottom, in the middle and at the top.
        summary: a phrase about each series.
    """
    slot = _slot(width, labels)
    step = max(1, math.ceil(_X_LABEL_WIDTH / slot))
    slots = []
    for place, label in enumerate(labels):
        values = [(one.name, one.values[place]) for one in series]
        texts = [f"{name} {shown(value)}" for name, value in values if value is not None]
        slots.append(
            {
                "x": _x(place, slot),
                "middle": _x(place + 0.5, slot),
                "title": f"{label}: {', '.join(texts) or '–'}",
                # As many labels as there is room for, evenly spaced.
                "label": label if (len(labels) - 1 - place) % step == step // 2 else "",
            }
        )
    description = f"{labels[0]} – {labels[-1]}: {'; '.join(summary)}" if labels else "–"
    return {
        "title": title,
        "description": description,
        "series": series,
        "width": width,
        "is_wide": width == WIDE,
        "height": HEIGHT,
        "left": _LEFT,
        "right": width - _RIGHT,
        "top": _TOP,
        "bottom": HEIGHT - _BOTTOM,
        "slot_width": round(slot, 1),
        "slot_height": _PLOT_HEIGHT,
        "slots": slots,
        "marks": [{"y": _y(place / 2), "text": text} for place, text in enumerate(axis)],
    }


def _slot(width: int, labels: Sequence[str]) -> float:
    """Return the width that each label has."""
    return (width - _LEFT - _RIGHT) / max(1, len(labels))


def _x(place: float, slot: float) -> float:
    return round(_LEFT + place * slot, 1)


def _y(share: float) -> float:
    return round(_TOP + (1 - share) * _PLOT_HEIGHT, 1)
