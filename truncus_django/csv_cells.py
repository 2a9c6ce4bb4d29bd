"""Values as cells of CSV files, without anything that a spreadsheet would run."""

import re
from datetime import datetime
from typing import Any

_FORMULA = re.compile(r"[\s\x00-\x1f\ufeff]*[=+\-@＝＋－＠]|[\t\v\f\r\n\x1c-\x1f\x85\u2028\u2029]")
"""How what a spreadsheet may run begins: an operator, full-width too, perhaps after blanks that it
leaves out; and what it may take for the end of the cell or the line."""


def cell(value: Any) -> str:
    """Return a value as a cell; what a spreadsheet would take for a formula gets an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = str(value)
    # Also what begins as an escaped formula does: else it could not be told from one.
    return f"'{text}" if _FORMULA.match(text.lstrip("'")) else text


class Line:
    """A file for the csv module that hands out what is written."""

    def write(self, text: str) -> str:
        """Return what is written."""
        return text


def text_in(cell: str) -> str:
    """Return the text that :func:`cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell.lstrip("'")) else cell
