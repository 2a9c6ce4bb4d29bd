"""CSS into attributes, on emails of the example shop: ``python -m benchmarks.css``.

css-inline as this package calls it, beside premailer, in a fresh process. CPU, medians of rounds;
making the HTML from its templates is not counted.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

from benchmarks.processes import WrongWork, output_of
from benchmarks.tables import ratio, table

ROUNDS = 5
TURNS = 40
"""Emails of each kind in a round."""


@dataclass(frozen=True, slots=True)
class Inlined:
    """One email's HTML: its size, and microseconds of CPU to inline its CSS."""

    email: str
    bytes: int
    css_inline_us: float
    premailer_us: float


def run(progress: Callable[[str], None] = lambda text: None) -> list[Inlined]:
    """Inline the CSS of the shop's emails, with each library.

    Raises:
        WrongWork: one of them did not.
    """
    progress("css")
    return [Inlined(**found) for found in json.loads(output_of("-m", "benchmarks.css", "--json"))]


def as_table(found: list[Inlined]) -> str:
    """Return what :func:`run` found, to print."""
    return table(
        ["CSS into attributes, CPU µs", "HTML bytes", "css-inline", "premailer", "ratio"],
        [
            [
                each.email,
                str(each.bytes),
                f"{each.css_inline_us:.0f}",
                f"{each.premailer_us:.0f}",
                ratio(each.premailer_us, each.css_inline_us),
            ]
            for each in found
        ],
    )


def _measured() -> list[dict[str, object]]:
    """Return the fields of :class:`Inlined` for each email; in a process of its own."""
    # Here, because they are only in the process that measures.
    from premailer import transform

    from truncus_django.sending.inline_css import inlined

    found: list[dict[str, object]] = []
    for name, html in _emails().items():
        libraries: Mapping[str, Callable[[str], str]] = {
            "css_inline_us": inlined,
            "premailer_us": transform,
        }
        for inline in libraries.values():
            if '<td class="head" style="' not in inline(html):
                raise WrongWork(f"the CSS of {name} was not inlined")
        found.append(
            {"email": name, "bytes": len(html.encode())}
            | {library: _cpu_us(inline, html) for library, inline in libraries.items()}
        )
    return found


def _emails() -> dict[str, str]:
    sys.path.insert(0, str(Path(__file__).parent.parent / "example_project"))
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    import django

    django.setup()
    from django.template.loader import render_to_string
    from shop.catalogue import PRODUCTS

    lines = [
        {"product": each.name, "price": each.price, "quantity": 2, "total": 2 * each.price}
        for each in PRODUCTS.values()
    ]
    order = SimpleNamespace(
        number="LK-00042",
        total=Decimal("262.40"),
        customer=SimpleNamespace(first_name="Rose <3 Tea"),
        lines=SimpleNamespace(all=lines),
    )
    contexts: dict[str, dict[str, object]] = {
        "order": {"order": order, "url": "https://shop.example.com/orders/42/"},
        "digest": {"name": "Rose", "products": list(PRODUCTS.values()) * 10, "url": "https://x/"},
    }
    return {
        name: render_to_string(f"shop/emails/{name}.html", context)
        for name, context in contexts.items()
    }


def _cpu_us(inline: Callable[[str], str], html: str) -> float:
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(TURNS):
            inline(html)
        rounds.append((time.process_time() - started) / TURNS * 1e6)
    return statistics.median(rounds)


if __name__ == "__main__":
    print(json.dumps(_measured()) if "--json" in sys.argv else as_table(run()))
