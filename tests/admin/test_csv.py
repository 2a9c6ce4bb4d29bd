"""The log as a CSV file."""

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry

from tests.admin.pages import LOG, confirm, make
from truncus_django.admin.csv import cell
from truncus_django.states import State

pytestmark = pytest.mark.django_db


def rows(response: Any) -> list[dict[str, str]]:
    assert response.status_code == 200
    text = b"".join(response.streaming_content).decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_holds_everything_but_bodies(admin_client):
    email = make(
        to=["a@example.org", "b@example.org"],
        subject="Tea, hot",
        text_body="secret",
        html_body="secret",
        tenant_id="acme",
    )

    response = confirm(admin_client, "export_csv", email)
    [row] = rows(response)

    assert response["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in response["Content-Disposition"]
    assert row["id"] == str(email.pk)
    assert row["to"] == "a@example.org, b@example.org"
    assert row["subject"] == "Tea, hot"
    assert row["state"] == "delivered"
    assert "secret" not in "".join(row.values())


OPERATORS = [*"=+-@＝＋－＠"]
BREAKS = ["\t", "\r", "\n", "\r\n", "\v", "\f", "\x85", "\u2028", "\u2029"]


@pytest.mark.parametrize(
    "start", [*OPERATORS, *BREAKS, "\n=", " =", "\u3000＝", "\xa0+", "\ufeff@", "\x1b-"]
)
def test_formulas_are_defused(admin_client, start):
    email = make(subject=f"{start}HYPERLINK(1)", to=[f"{start}x@example.org"])

    [row] = rows(confirm(admin_client, "export_csv", email))

    assert row["subject"] == f"'{start}HYPERLINK(1)"
    assert row["to"] == f"'{start}x@example.org"


@pytest.mark.parametrize("text", ["1 = 1", "a@b.org", " x", "Tea – 5 €", "“=”", "'a", ""])
def test_what_is_no_formula_stays_as_it_is(text):
    assert cell(text) == text


def test_cells():
    moment = datetime(2026, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert cell(None) == ""
    assert cell(True) == "yes"
    assert cell(moment) == "2026-02-03T04:05:06+00:00"
    assert cell(["=x", "y"]) == "'=x, y"


def test_all_that_fits_the_filters_can_be_taken_at_once(admin_client):
    for _ in range(60):
        make()
    for _ in range(3):
        other = make(state=State.BOUNCED)

    data = {
        "action": "export_csv",
        "index": "0",
        "select_across": "1",
        "_selected_action": str(other.pk),
    }
    question = admin_client.post(f"{LOG}?state__exact=delivered", data)
    assert 'name="select_across" value="1"' in question.text
    response = admin_client.post(f"{LOG}?state__exact=delivered", {**data, "confirmed": "Yes"})

    assert len(rows(response)) == 60
    assert LogEntry.objects.get().object_repr == "60 emails"


def test_it_is_noted_on_the_email_or_for_all(admin_client):
    one, two = make(), make()

    confirm(admin_client, "export_csv", one)
    confirm(admin_client, "export_csv", one, two)

    notes = LogEntry.objects.order_by("pk").values_list("object_id", "change_message")
    assert list(notes) == [(str(one.pk), "Exported as CSV."), (None, "Exported as CSV.")]
