"""What the package offers is what ``__all__`` lists, and all of it is documented."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
MODULES = [
    "api",
    "api.errors",
    "backend",
    "bulk",
    "emulator",
    "forget",
    "message",
    "metrics.otel",
    "metrics.prometheus",
    "models",
    "outbox.operations",
    "outbox.health",
    "previews",
    "quota.overview",
    "signals",
    "suppression",
    "unsubscribe",
    "testing",
]


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_exists_and_is_documented(name):
    module = import_module(f"truncus_django.{name}")
    words = set(re.findall(r"\w+", "".join(page.read_text() for page in PAGES)))

    assert [public for public in module.__all__ if not hasattr(module, public)] == []
    assert [public for public in module.__all__ if public not in words] == []


def test_what_the_documentation_imports_is_public():
    imports = re.findall(
        r"^from (truncus_django[\w.]*) import ([\w, ]+)$",
        "".join(page.read_text() for page in PAGES),
        re.M,
    )
    assert imports
    for path, names in imports:
        module = import_module(path)
        assert set(names.split(", ")) <= set(module.__all__), path
