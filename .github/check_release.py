"""Check that a tag, the version and the newest entry of CHANGELOG.md are the same release.

``python .github/check_release.py v0.1.0`` exits with 1 and a message where they are not.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def problem(tag: str, package: str, changes: str) -> str | None:
    """Return what keeps ``tag`` from being released, given two files' text; ``None``: nothing."""
    version = re.search(r'^__version__ = "(.+)"$', package, re.M)
    entry = re.search(r"^## (\S+) \((.+)\)$", changes, re.M)
    if not version or tag != f"v{version[1]}":
        return f"The tag is {tag}, and the package has version {version and version[1]}."
    if not entry or entry[1] != version[1]:
        return f"The newest entry of CHANGELOG.md is {entry and entry[1]}, not {version[1]}."
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", entry[2]):
        return f"The entry of CHANGELOG.md is dated {entry[2]}, not YYYY-MM-DD."
    return None


if __name__ == "__main__":
    sys.exit(
        problem(
            sys.argv[1],
            (ROOT / "truncus_django" / "__init__.py").read_text(encoding="utf-8"),
            (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        )
    )
