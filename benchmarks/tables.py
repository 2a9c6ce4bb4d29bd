"""Plain-text tables."""

from collections.abc import Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return ``rows`` under ``heads``; the first column is aligned left, the others right."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    lines = [_line(heads, widths), "  ".join("-" * width for width in widths)]
    return "\n".join(lines + [_line(row, widths) for row in rows])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        f"{cell:>{width}}" if column else f"{cell:<{width}}"
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def ratio(one: float | None, other: float | None) -> str:
    """Return ``one / other`` as text, or a dash."""
    if one is None or not other:
        return "–"
    value = one / other
    return f"{value:.2f} ×" if value >= 0.1 else f"{value:.3f} ×"
