"""Suppressed addresses in the admin: each thing with its permission and its history."""

import re
from datetime import timedelta
from html import unescape
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.admin.pages import make, messages_of
from truncus_django.admin import suppression_views
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


def confirm_end(client, question, **data):
    """Answer the question with yes, as its page does."""
    [url] = re.findall(r'<form method="post" action="([^"]*)">', question.text)
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', question.text)
    return client.post(unescape(url), {**dict(hidden), "confirmed": "Yes", **data})


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
    question = run(client, "end_now", *SuppressedAddress.objects.all())
    assert "1 of the chosen addresses may be mailed already." in question.text
    assert is_suppressed(ANN, list_name="digest")
    answer = confirm_end(client, question)
    assert messages_of(client, answer) == "1 address may be mailed again."
    assert not is_suppressed(ANN, list_name="digest")
    assert LogEntry.objects.get().object_id == str(entry.pk)
    assert "over" in client.get(LIST).text


def test_ending_many_takes_as_many_queries_as_ending_two(admin_client):
    def queries(count):
        for number in range(count):
            suppress(f"customer-{number}@example.net")
        with CaptureQueriesContext(connection) as captured:
            entries = SuppressedAddress.objects.in_force()
            confirm_end(admin_client, run(admin_client, "end_now", *entries))
        return len(captured)

    assert queries(50) == queries(2)
    assert LogEntry.objects.count() == 52
    assert set(LogEntry.objects.values_list("change_message", flat=True)) == {
        "Ended: may be mailed again."
    }


def test_the_question_names_the_addresses_and_who_asked_for_no_emails(admin_client, entry):
    for number in range(24):
        suppress(f"customer-{number}@example.net")
    in_order = SuppressedAddress.objects.order_by("-created_at")
    for one, reason in zip(in_order, ("complaint", "unsubscribed", "blocked"), strict=False):
        SuppressedAddress.objects.filter(pk=one.pk).update(reason=reason)

    page = run(admin_client, "end_now", *SuppressedAddress.objects.all())

    assert "Let these 25 addresses be mailed again?" in page.text
    assert 'value="Let 25 addresses be mailed again"' in page.text
    assert [one for one, _ in page.context["rows"]] == list(in_order[:20])
    assert "and 5 more" in page.text
    assert "blocked by Truncus" in page.text
    assert "2 of them are addresses of people who complained or unsubscribed" in page.text
    assert SuppressedAddress.objects.in_force().count() == 25


def test_one_bounce_is_asked_about_in_the_singular_and_without_a_warning(admin_client, entry):
    SuppressedAddress.objects.update(reason="hard_bounce")
    page = run(admin_client, "end_now", entry)
    assert "Let this address be mailed again?" in page.text
    assert 'value="Let 1 address be mailed again"' in page.text
    assert "asked for no emails" not in page.text


def test_what_comes_after_a_question_about_all_of_a_list_stays(admin_client, entry):
    suppress("joann@example.org")
    question = run(admin_client, "end_now", entry, select_across="1")
    assert "Let these 2 addresses be mailed again?" in question.text
    suppress("late@example.org")
    told = messages_of(admin_client, confirm_end(admin_client, question))
    assert told == "2 addresses may be mailed again."
    assert [one.address for one in SuppressedAddress.objects.in_force()] == ["late@example.org"]


@pytest.mark.parametrize("until", [None, timedelta(days=1)])
def test_who_complains_after_the_question_stays_suppressed(admin_client, entry, until):
    SuppressedAddress.objects.update(expires_at=until and timezone.now() + until)
    question = run(admin_client, "end_now", entry)
    suppress(ANN, list_name="digest", reason="complaint")
    told = messages_of(admin_client, confirm_end(admin_client, question))
    assert "No address was changed" in told
    assert SuppressedAddress.objects.get().is_in_force


def test_a_complaint_that_comes_late_of_before_the_question_stays(admin_client):
    suppress(ANN, reason="hard_bounce")
    question = run(admin_client, "end_now", SuppressedAddress.objects.get())
    assert "asked for no emails" not in question.text
    an_hour_ago = timezone.now() - timedelta(hours=1)
    SuppressedAddress.objects.update(reason="complaint", created_at=an_hour_ago)

    told = messages_of(admin_client, confirm_end(admin_client, question))

    assert "No address was changed" in told
    assert is_suppressed(ANN)


def test_only_what_the_question_was_about_is_ended(admin_client, entry):
    over = timezone.now() - timedelta(days=1)
    suppress("over@example.net", expires_at=over)
    question = run(admin_client, "end_now", entry, select_across="1")
    SuppressedAddress.objects.filter(expires_at=over).update(expires_at=None)
    told = messages_of(admin_client, confirm_end(admin_client, question))
    assert told == "1 address may be mailed again."
    assert is_suppressed("over@example.net")


def test_what_the_question_was_about_is_ended_whatever_the_list_shows(admin_client, monkeypatch):
    monkeypatch.setattr(suppression_views, "MAX_VALUES", 2)
    for number in range(5):
        suppress(f"customer-{number}@example.net", reason="blocked")
    entries = SuppressedAddress.objects.all()
    chosen = {"action": "end_now", "index": "0", "_selected_action": [each.pk for each in entries]}
    source = entries[0].source
    question = admin_client.post(f"{LIST}?source__exact={source}", chosen)
    assert "customer-4@example.net" in question.text.replace("<wbr>", "")
    SuppressedAddress.objects.update(source="webhook" if source != "webhook" else "sync")
    told = messages_of(admin_client, confirm_end(admin_client, question))
    assert told == "5 addresses may be mailed again."
    assert not SuppressedAddress.objects.in_force().exists()


def test_a_list_that_is_shorter_by_then_does_not_lose_the_answer(admin_client):
    for number in range(51):
        suppress(f"customer-{number}@example.net", reason="blocked")
    last = SuppressedAddress.objects.order_by("created_at")[0]
    chosen = {"action": "end_now", "index": "0", "_selected_action": [last.pk]}
    question = admin_client.post(f"{LIST}?reason__exact=blocked&p=2", chosen)
    assert question.context["back_url"] == f"{LIST}?reason__exact=blocked&p=2"
    SuppressedAddress.objects.exclude(pk=last.pk).delete()
    answer = confirm_end(admin_client, question)
    assert answer["Location"] == f"{LIST}?reason__exact=blocked"
    assert not SuppressedAddress.objects.get().is_in_force


@pytest.mark.parametrize(
    "broken",
    [{"meant": ""}, {"meant": "zz"}, {"asked_at": ""}, {"asked_at": "zz"}],
    ids=lambda broken: "-".join(*broken.items()),
)
def test_an_answer_that_says_not_what_to_or_when_is_asked_for_again(admin_client, entry, broken):
    suppress("joann@example.org")
    question = run(admin_client, "end_now", entry)
    again = confirm_end(admin_client, question, **broken)
    assert "Let this address be mailed again?" in again.text
    assert [one for one, _ in again.context["rows"]] == [entry]
    assert SuppressedAddress.objects.in_force().count() == 2
    confirm_end(admin_client, again)
    assert not is_suppressed(ANN, list_name="digest")


def test_what_is_renewed_while_others_are_ended_stays(admin_client, entry, monkeypatch):
    SuppressedAddress.objects.update(expires_at=timezone.now() + timedelta(days=1))
    suppress("joann@example.org")
    end = suppression_views._end

    def end_late(*args):
        suppress(ANN, list_name="digest", reason="complaint")
        return end(*args)

    question = run(admin_client, "end_now", *SuppressedAddress.objects.all())
    monkeypatch.setattr(suppression_views, "_end", end_late)
    told = messages_of(admin_client, confirm_end(admin_client, question))
    assert told == "1 address may be mailed again."
    assert SuppressedAddress.objects.in_force().get() == entry
    assert LogEntry.objects.get().object_id != str(entry.pk)


def test_what_has_ended_and_what_is_too_much_are_not_asked_about(admin_client, entry, monkeypatch):
    suppress("joann@example.org")
    monkeypatch.setattr(suppression_views, "MAX_ROWS", 1)
    both = run(admin_client, "end_now", *SuppressedAddress.objects.all(), confirmed="Yes")
    assert messages_of(admin_client, both) == "At most 1 addresses at once; choose fewer."
    assert SuppressedAddress.objects.in_force().count() == 2
    question = run(admin_client, "end_now", entry)
    many = confirm_end(admin_client, question, meant=f"{entry.pk} {uuid4()}")
    assert "At most 1 addresses" in messages_of(admin_client, many)
    confirm_end(admin_client, question)
    again = confirm_end(admin_client, question)
    assert "No address was changed" in messages_of(admin_client, again)
    assert LogEntry.objects.count() == 1


def test_removing_needs_its_permission_and_is_in_the_history(may, entry):
    client = may("view_suppressedaddress", "delete_suppressedaddress")
    assert run(client, "delete_selected", entry, post="yes").status_code == 302
    assert not SuppressedAddress.objects.exists()
    assert LogEntry.objects.get().is_deletion()


def test_exporting_needs_its_permission_and_is_in_the_history(may, entry):
    client = may("view_suppressedaddress", "export_suppressedaddress")
    answer = run(client, "export_as_csv", entry)
    lines = b"".join(answer).decode().splitlines()
    assert lines[0].startswith("address,tenant,list,reason")
    assert lines[1].startswith("ann@example.net,,digest,by_hand")
    suppress("joann@example.org")
    run(client, "export_as_csv", *SuppressedAddress.objects.all())
    both, one = LogEntry.objects.all()
    assert (one.object_id, one.change_message) == (str(entry.pk), "Exported as CSV.")
    assert (both.object_id, both.object_repr) == (None, "2 suppressed addresses")
    assert both.content_type.model_class() is one.content_type.model_class() is SuppressedAddress


def test_who_may_only_look_can_do_nothing_else(may, entry):
    client = may("view_suppressedaddress")
    assert ANN in client.get(LIST).text
    for action in ("end_now", "export_as_csv", "delete_selected"):
        run(client, action, entry, post="yes", confirmed="Yes")
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
