"""What a package index shows: the metadata and the README."""

import re
import subprocess
import sys
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest
from readme_renderer import markdown

from tests.packaging.conftest import ROOT


@pytest.fixture
def metadata(wheel: Path) -> Message:
    """The wheel's METADATA."""
    with ZipFile(wheel) as files:
        (name,) = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(files.read(name))


@pytest.fixture
def page(metadata: Message) -> str:
    """The description as HTML, rendered and cleaned as PyPI does it."""
    text = metadata.get_payload(decode=True)
    assert isinstance(text, bytes)
    html: str | None = markdown.render(text.decode())
    assert html is not None
    return html


def test_an_index_takes_both_distributions(distributions):
    files = [str(path) for path in distributions.iterdir() if path.is_file()]
    assert len(files) == 2

    command = [sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_names_where_to_go(metadata):
    assert metadata.get_all("Project-URL") == ["Homepage, https://truncus.co"]


def test_no_link_and_no_image_leads_nowhere(page):
    targets = re.findall(r'(?:href|src)="([^"]*)"', page)

    assert targets
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    assert "](" not in page


def test_its_pages_are_named_instead(page):
    pages = set(re.findall(r"\]\(((?:docs/)?\w+\.md)\)", (ROOT / "README.md").read_text()))
    assert {"docs/outbox.md", "CHANGELOG.md"} <= pages

    assert sorted(name for name in pages if f"<code>{name}</code>" not in page) == []
    assert "source distribution" in page
