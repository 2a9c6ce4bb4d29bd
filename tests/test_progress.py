"""How far a long job is: a bar on a terminal with tqdm, lines anywhere else."""

import sys
from io import StringIO

import pytest

from truncus_django.progress import Progress


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar():
    stream = Terminal()
    progress = Progress(4, "emails", stream=stream)
    for _ in range(4):
        progress.advance()
    progress.close()
    assert "100%|" in stream.getvalue()
    assert "4/4" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize("stream", [Terminal(), StringIO()], ids=["without tqdm", "a file"])
def test_others_see_a_line_now_and_then(monkeypatch, stream):
    monkeypatch.setitem(sys.modules, "tqdm", None)  # as if it were not installed
    now = 0.0
    progress = Progress(100, "emails", stream=stream, every=40, clock=lambda: now)
    for _ in range(100):
        progress.advance()
    now = 61.0
    progress.advance()
    progress.close()
    assert stream.getvalue().splitlines() == [
        "40 of 100 emails", "80 of 100 emails", "101 of 101 emails",
    ]  # fmt: skip
