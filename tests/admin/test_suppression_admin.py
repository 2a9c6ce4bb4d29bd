"""Suppressed addresses in the admin: each thing with its permission and its history."""

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.admin.pages import make, messages_of
from truncus_django.models import SuppressedAddress
from truncus_django.suppression import is_suppressed, suppress

pytestmark = pytest.mark.django_db

LIST = "/admin/truncus_django/suppressedaddress/"
ADD = f"{LIST}add/"
ANN = "ann@example.net"


def page_of(entry):
    return reverse("admin:truncus_django_suppressedaddress_change", args=[entry.pk])


def run(client, action, *entries, **data):
    chosen = [str(entry.pk) for entry in entries]
    return client.post(LIST, {"action": action, "_selected_action": chosen, "index": "0", **data})


@pytest.fixture
def entry():
    suppress(ANN, list_name="digest")
    return SuppressedAddress.objects.get()


@pytest.mark.parametrize(
    ("term", "found"),
    [
        ("Ann <ANN@example.net>", [ANN]),
        ("@example.org", ["joann@example.org"]),
        ("ann", ["joann@example.org", ANN]),
        ("ann@example.n", []),
        ("nobody", []),
        ("\x00", ["joann@example.org", ANN]),
    ],
)
def test_search_finds_addresses_and_parts_of_them(admin_client, term, found):
    suppress(ANN)
    suppress("joann@example.org")
    shown = admin_client.get(LIST, {"q": term}).context["cl"].result_list
    assert [entry.address for entry in shown] == found


def test_adding_needs_its_permission_and_is_in_the_history(may):
    client = may("view_suppressedaddress", "add_suppressedaddress")
    answer = client.post(ADD, {"address": "Ann <ANN@Bücher.example>", "tenant_id": "acme"})
    assert answer.status_code == 302
    added = SuppressedAddress.objects.get()
    assert (added.address, added.tenant_id) == ("ann@xn--bcher-kva.example", "acme")
    assert (added.reason, added.source) == ("by_hand", "admin")
    log = LogEntry.objects.get()
    assert log.is_addition()
    assert "@" not in log.object_repr + log.get_change_message()
    assert client.post(page_of(added), {"note": "x"}).status_code == 403


@pytest.mark.parametrize("address", ["ann", "a@b, c@d", ""])
def test_what_is_no_address_is_a_clear_error(admin_client, address):
    page = admin_client.post(ADD, {"address": address})
    assert page.context["errors"]
    assert not SuppressedAddress.objects.exists()


def test_an_address_that_is_there_is_a_clear_error(admin_client, entry):
    page = admin_client.post(ADD, {"address": ANN.upper(), "list_name": "digest"})
    assert "The address is there already" in page.text
    assert admin_client.post(ADD, {"address": ANN}).status_code == 302
    assert SuppressedAddress.objects.count() == 2


def test_only_note_and_end_change(may, entry):
    client = may("view_suppressedaddress", "change_suppressedaddress")
    data = {"note": "By phone", "address": "other@example.net", "reason": "complaint"}
    data |= {"expires_at_0": "2020-01-01", "expires_at_1": "12:00"}
    assert client.post(page_of(entry), data).status_code == 302
    entry.refresh_from_db()
    assert (entry.address, entry.reason, entry.note) == (ANN, "by_hand", "By phone")
    assert not entry.is_in_force
    assert LogEntry.objects.get().is_change()


def test_ending_needs_its_permission_and_is_in_the_history(may, entry):
    suppress("over@example.net", expires_at=timezone.now() - timedelta(days=1))
    client = may("view_suppressedaddress", "change_suppressedaddress")
    answer = run(client, "end_now", *SuppressedAddress.objects.all())
    assert messages_of(client, answer) == "1 address may be mailed again."
    assert not is_suppressed(ANN, list_name="digest")
    assert LogEntry.objects.get().object_id == str(entry.pk)
    assert "over" in client.get(LIST).text


def test_ending_many_takes_as_many_queries_as_ending_two(admin_client):
    def queries(count):
        for number in range(count):
            suppress(f"customer-{number}@example.net")
        with CaptureQueriesContext(connection) as captured:
            run(admin_client, "end_now", *SuppressedAddress.objects.in_force())
        return len(captured)

    assert queries(50) == queries(2)
    assert LogEntry.objects.count() == 52
    assert set(LogEntry.objects.values_list("change_message", flat=True)) == {
        "Ended: may be mailed again."
    }


def test_removing_needs_its_permission_and_is_in_the_history(may, entry):
    client = may("view_suppressedaddress", "delete_suppressedaddress")
    assert run(client, "delete_selected", entry, post="yes").status_code == 302
    assert not SuppressedAddress.objects.exists()
    assert LogEntry.objects.get().is_deletion()


def test_exporting_needs_its_permission(may, entry):
    client = may("view_suppressedaddress", "export_suppressedaddress")
    answer = run(client, "export_as_csv", entry)
    lines = b"".join(answer).decode().splitlines()
    assert lines[0].startswith("address,tenant,list,reason")
    assert lines[1].startswith("ann@example.net,,digest,by_hand")


def test_who_may_only_look_can_do_nothing_else(may, entry):
    client = may("view_suppressedaddress")
    assert ANN in client.get(LIST).text
    for action in ("end_now", "export_as_csv", "delete_selected"):
        run(client, action, entry, post="yes")
    assert client.post(ADD, {"address": "b@example.net"}).status_code == 403
    assert client.post(f"{LIST}{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    assert SuppressedAddress.objects.get().is_in_force
    assert not LogEntry.objects.exists()


def test_an_entry_links_to_its_email_and_the_email_tells_who_was_left_out(admin_client, entry):
    email = make(suppressed=["Cy <cy@example.net>"], unsubscribe_list="digest")
    SuppressedAddress.objects.update(email=email)
    assert reverse("admin:truncus_django_email_change", args=[email.pk]) in (
        admin_client.get(page_of(entry)).text
    )
    page = admin_client.get(reverse("admin:truncus_django_email_change", args=[email.pk])).text
    assert "Left out, as suppressed" in page
    assert "cy@example.net" in page
    assert "digest" in page


def test_pages_say_what_an_empty_tenant_list_and_end_mean(admin_client, entry):
    SuppressedAddress.objects.update(tenant_id="", list_name="", expires_at=None)
    add = admin_client.get(ADD).text
    for text in ("emails of all tenants", "empty for all emails", "suppressed for ever"):
        assert text in add
    for path in (LIST, page_of(entry)):
        assert "all emails" in admin_client.get(path).text
    assert "for ever" in admin_client.get(LIST).text
