"""A walk through the shop; every mail is really sent, to a local Truncus."""

import logging
import re
import sys
from datetime import datetime, timedelta
from importlib.util import find_spec
from io import StringIO
from typing import Any
from unittest import skipUnless
from zoneinfo import ZoneInfo

import django
from config import settings as project_settings
from config.logs import FieldsFormatter
from django.conf import settings
from django.contrib.auth.models import User
from django.core import mail
from django.core.management import call_command
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from django.urls import reverse

from shop import demo, emails
from shop.invoice import pdf_page
from shop.models import Order
from truncus_django.api.errors import EmailRefused
from truncus_django.testing import (
    SentEmail,
    assert_email_sent,
    assert_no_email_sent,
    deliver_event,
    links_in,
    run_emulator,
)

# The shop's own mailers; Django's test runner takes them away.
BACKEND: dict[str, Any]
if django.VERSION >= (6, 1):
    BACKEND = {"MAILERS": project_settings.MAILERS}
else:
    BACKEND = {"EMAIL_BACKEND": project_settings.EMAIL_BACKEND}


class WithTruncus(SimpleTestCase):
    """A shop with its own Truncus."""

    def setUp(self) -> None:
        self.emulator = self.enterContext(run_emulator())
        self.enterContext(override_settings(**BACKEND))
        self.enterContext(demo.site_of(self.emulator))


class ShopTestCase(WithTruncus, TestCase):
    """The same, with customers."""

    def customer(self, email: str = "ann@example.com") -> User:
        return User.objects.create_user(email, email, first_name="Ann & Co")


class SignUpTests(ShopTestCase):
    """From the sign-up form to the first log-in."""

    def sign_up(self, email: str = "rose@example.com") -> None:
        page = self.client.post(reverse("sign_up"), {"name": "Rose & Sons", "email": email})
        self.assertRedirects(page, reverse("password_reset_done"))

    def choose_password_with(self, mail: SentEmail) -> None:
        """Follow the link in a mail and fill in the form behind it."""
        [link] = [link for link in links_in(mail) if "/password/" in link]
        page = self.client.get(link, follow=True)
        passwords = {"new_password1": "seven leaves", "new_password2": "seven leaves"}
        page = self.client.post(page.redirect_chain[-1][0], passwords)
        self.assertRedirects(page, reverse("front"))

    def test_sign_up_order_and_password_reset(self) -> None:
        self.sign_up()
        welcome = assert_email_sent(
            to=["rose@example.com"],
            subject="Welcome to Leaf & Kettle",
            html_contains="Welcome, Rose &amp; Sons!",
        )
        self.choose_password_with(welcome)
        self.assertContains(self.client.get(reverse("front")), "Rose &amp; Sons")
        page = self.client.post(reverse("place_order"), {"assam": 2, "cups": 1}, follow=True)
        self.assertContains(page, "A confirmation is on its way")
        self.assertContains(page, "39.80 €")
        assert_email_sent(to="rose@example.com", subject="Your order LK-00001")

        self.client.post(reverse("logout"))
        self.client.post(reverse("password_reset"), {"email": "rose@example.com"})
        self.choose_password_with(assert_email_sent(subject="A new password for Leaf & Kettle"))

    def test_known_address_gets_its_link_and_no_second_account(self) -> None:
        self.sign_up()
        self.sign_up("Rose@example.com")
        assert User.objects.count() == 1
        assert_email_sent(link=re.compile("/password/"), count=2)

    def test_reset_of_an_unknown_address_sends_nothing(self) -> None:
        page = self.client.post(reverse("password_reset"), {"email": "nobody@example.com"})
        self.assertRedirects(page, reverse("password_reset_done"))
        assert_no_email_sent()


class OrderTests(ShopTestCase):
    """Orders and their confirmations."""

    def test_confirmation_has_text_html_and_the_invoice(self) -> None:
        emails.send_order_confirmation(Order.place(self.customer(), {"assam": 1}))
        mail = assert_email_sent(
            text_contains="Hello Ann & Co,",
            html_contains="Thank you, Ann &amp; Co!",
            link=Order.objects.get().get_absolute_url(),
        )
        assert mail.reply_to == ("orders@example.com",)
        [pdf] = mail.attachments
        assert pdf.content_type == "application/pdf"
        assert pdf.content.startswith(b"%PDF-")

    def test_confirmation_is_in_the_language_of_the_order(self) -> None:
        self.client.force_login(self.customer())
        self.client.post(
            reverse("place_order"), {"assam": 2}, headers={"accept-language": "de-AT, en;q=0.5"}
        )
        mail = assert_email_sent(
            subject="Ihre Bestellung LK-00001",
            text_contains="Hallo Ann & Co,",
            html_contains="Vielen Dank, Ann &amp; Co!",
        )
        assert "Summe: 17,80 €" in mail.text
        assert 'lang="de"' in mail.html

    def test_css_of_the_templates_is_in_attributes(self) -> None:
        emails.send_order_confirmation(Order.place(self.customer(), {"assam": 1}))
        mail = assert_email_sent(html_contains='<td class="head" style="padding: 24px 32px;')
        assert "@media (max-width: 480px)" in mail.html

    def test_order_stands_when_its_confirmation_is_refused(self) -> None:
        self.client.force_login(self.customer("suppressed@example.com"))
        with self.assertLogs("shop.views", "WARNING"):
            page = self.client.post(reverse("place_order"), {"sencha": 1}, follow=True)
        self.assertContains(page, "please print this page")
        assert Order.objects.count() == 1
        assert_email_sent(to="owner@example.com", text_contains="EmailRefused", count=1)
        assert_no_email_sent(to="suppressed@example.com")

    def test_bounce_of_a_confirmation_is_in_the_log(self) -> None:
        emails.send_order_confirmation(Order.place(self.customer(), {"cups": 1}))
        record = deliver_event(assert_email_sent(), "bounced", reason="mailbox_full")
        assert (record.state, record.reason) == ("bounced", "mailbox_full")

    def test_empty_basket_is_no_order(self) -> None:
        self.client.force_login(self.customer())
        page = self.client.post(reverse("place_order"), {"sencha": 0})
        self.assertContains(page, "Your basket is empty.")
        assert Order.objects.count() == 0

    def test_strangers_cannot_look_at_an_order(self) -> None:
        order = Order.place(self.customer(), {"cups": 1})
        self.client.force_login(self.customer("eve@example.com"))
        assert self.client.get(order.get_absolute_url()).status_code == 404

    def test_visitors_are_asked_to_log_in_and_come_back_to_the_shelf(self) -> None:
        page = self.client.post(reverse("place_order"), {"cups": 1})
        self.assertRedirects(page, f"{reverse('login')}?next={reverse('place_order')}")
        self.client.force_login(self.customer())
        self.assertRedirects(self.client.get(reverse("place_order")), reverse("front"))


class ManyTests(ShopTestCase):
    """Mails to many, later, or to nobody."""

    def test_delay_notices_of_the_admin_share_one_request(self) -> None:
        for number in range(3):
            Order.place(self.customer(f"customer{number}@example.com"), {"cups": 1})
        self.client.force_login(User.objects.create_superuser("owner"))
        chosen = {"action": "announce_delay", "_selected_action": [1, 2, 3]}
        page = self.client.post(reverse("admin:shop_order_changelist"), chosen, follow=True)
        self.assertContains(page, "3 customers were told.")
        assert self.emulator.request_counts == {("POST", "batch", 200): 1}

    def test_delay_notices_say_in_the_admin_whom_they_did_not_reach(self) -> None:
        for name in ("ann", "suppressed"):
            Order.place(self.customer(f"{name}@example.com"), {"cups": 1})
        self.client.force_login(User.objects.create_superuser("owner"))
        chosen = {"action": "announce_delay", "_selected_action": [1, 2]}
        page = self.client.post(reverse("admin:shop_order_changelist"), chosen, follow=True)
        self.assertContains(page, "1 customers were told; 1 of 2 emails were not sent.")

    def test_digest_waits_at_truncus_and_is_there_once(self) -> None:
        customer, monday = self.customer(), datetime.now(ZoneInfo("UTC")) + timedelta(days=3)
        emails.schedule_weekly_digest(customer, monday)
        emails.schedule_weekly_digest(customer, monday)
        [mail] = self.emulator.emails
        assert (mail.status, mail.tenant_id) == ("scheduled", "newsletter")

    def test_who_unsubscribes_gets_no_digest_and_still_the_confirmations(self) -> None:
        customer, monday = self.customer(), datetime.now(ZoneInfo("UTC")) + timedelta(days=3)
        emails.schedule_weekly_digest(customer, monday)
        payload = self.emulator.emails[-1].payload
        assert payload is not None
        link = payload["headers"]["List-Unsubscribe"].strip("<>")
        assert link in payload["text"]
        assert link in payload["html"]
        path = link.removeprefix("https://shop.example.com")
        self.assertContains(self.client.get(path), "<button>")
        page = self.client.post(path, {"List-Unsubscribe": "One-Click"})
        self.assertContains(page, "You are unsubscribed")
        with self.assertRaises(EmailRefused):  # noqa: PT027  runs without pytest
            emails.schedule_weekly_digest(customer, monday + timedelta(days=7))
        emails.send_order_confirmation(Order.place(customer, {"cups": 1}))

    def test_letters_of_a_week_reach_each_customer_once(self) -> None:
        for name in ("ann", "bea"):
            Order.place(self.customer(f"{name}@example.com"), {"cups": 1})
            Order.place(User.objects.get(username=f"{name}@example.com"), {"kettle": 1})
        for told in ("2 accepted", "2 skipped"):
            output = StringIO()
            call_command("send_digests", stdout=output)
            assert output.getvalue() == f"2 messages: {told}.\n"
        found = sorted(str(mail.payload and mail.payload["to"]) for mail in self.emulator.emails)
        assert found == ["ann@example.com", "bea@example.com"]

    def test_rehearsal_stays_in_the_sandbox(self) -> None:
        emails.rehearse_weekly_digest()
        [mail] = self.emulator.emails
        assert mail.sandbox
        assert mail.tenant_id == "newsletter"

    def test_newsletter_complaint_does_not_stop_confirmations(self) -> None:
        customer = self.customer()
        self.emulator.suppress(customer.email, tenant="newsletter")
        emails.send_order_confirmation(Order.place(customer, {"cups": 1}))
        with self.assertRaises(EmailRefused):  # noqa: PT027  runs without pytest
            emails.schedule_weekly_digest(customer, datetime.now(ZoneInfo("UTC")) + timedelta(1))


class StagingTests(ShopTestCase):
    """A site that works on a copy of the customers."""

    def test_only_those_who_work_on_it_get_mail(self) -> None:
        guarded = {**settings.TRUNCUS, **project_settings.STAGING_GUARD}
        with override_settings(TRUNCUS=guarded):
            order = Order.place(self.customer("ann@example.org"), {"cups": 1})
            emails.send_order_confirmation(order)
            emails.report_unsent_confirmation(order, RuntimeError("a test"))
        assert [each.to for each in self.emulator.emails] == [
            ("developer@example.com",),
            ("owner@example.com",),
        ]


class FallbackTests(ShopTestCase):
    """What happens when Truncus takes nothing."""

    def test_order_is_confirmed_by_the_fallback_mailer_while_the_key_is_refused(self) -> None:
        self.emulator.reset(revoked_keys=[settings.TRUNCUS["API_KEY"]])
        order = Order.place(self.customer(), {"cups": 1})
        with self.assertLogs("truncus_django", "ERROR") as logged:
            emails.send_order_confirmation(order)
        [confirmation] = mail.outbox
        assert confirmation.to == ["ann@example.com"]
        assert len(confirmation.attachments) == 1
        assert vars(logged.records[0])["truncus_event"] == "fallback_mailer_used"
        assert self.emulator.emails == []


class MonitoringTests(ShopTestCase):
    """The pages that machines ask for."""

    def ask(self, name: str, token: str) -> Any:
        return self.client.get(reverse(name), headers={"authorization": f"Bearer {token}"})

    def test_health_is_for_whoever_has_the_token(self) -> None:
        assert self.ask("truncus_django:health", "a wrong one").status_code == 403
        assert self.ask("truncus_django:health", demo.HEALTH_TOKEN).json()["status"] == "healthy"

    @skipUnless(find_spec("prometheus_client"), "needs the extra prometheus")
    def test_metrics_are_for_whoever_has_the_token(self) -> None:
        assert self.ask("metrics", "a wrong one").status_code == 403
        self.assertContains(self.ask("metrics", demo.HEALTH_TOKEN), "truncus_sent_emails_total")

    @skipUnless(find_spec("prometheus_client"), "needs the extra prometheus")
    def test_metrics_are_for_nobody_where_no_token_is_set(self) -> None:
        with override_settings(TRUNCUS={**settings.TRUNCUS, "HEALTH_TOKEN": None}):
            for token in ("", "None"):
                assert self.ask("metrics", token).status_code == 403


class LogTests(SimpleTestCase):
    """The formatter of the log."""

    def test_fields_stand_behind_the_text_and_before_the_traceback(self) -> None:
        try:
            int("a test")
        except ValueError:
            record = logging.LogRecord("shop", logging.INFO, "", 1, "Sent.", (), sys.exc_info())
        record.truncus_event = "email_accepted"
        record.truncus_count = 2
        record.truncus_code = None
        formatter = FieldsFormatter("{levelname} {message}", style="{")
        lines = formatter.format(record).splitlines()
        assert lines[0] == "INFO Sent. truncus_event=email_accepted truncus_count=2"
        assert lines[-1].startswith("ValueError: ")


class DemoTests(WithTruncus, TransactionTestCase):
    """What the demo says when something is not as expected."""

    def setUp(self) -> None:
        super().setUp()
        self.emulator.reset(**demo.ACCOUNT)

    def test_demo_finds_nothing_to_complain_about(self) -> None:
        assert demo.run(self.emulator).differences == []

    def test_demo_tells_what_came_out_differently(self) -> None:
        self.emulator.reset(**{**demo.ACCOUNT, "revoked_keys": [], "monthly_limit": 2000})
        self.emulator.suppress("rose@example.com", tenant="newsletter")
        differences = demo.run(self.emulator).differences
        fallback = settings.TRUNCUS["FALLBACK_MAILER"]
        for text in (
            "Weekly digest, scheduled: answers: expected {'scheduled': 1}, found {'rejected': 1}",
            f"Order, key revoked: sent by: expected {fallback}, found ",
            "Quotas: used, left: expected [(758, 0)], found ",
            "Letters held back: expected 5, found 0",
        ):
            assert any(each.startswith(text) for each in differences), (text, differences)


class PreviewTests(ShopTestCase):
    """The previews of the shop's emails, and of Django's password reset."""

    @override_settings(DEBUG=True)
    def test_each_email_can_be_looked_at_and_nothing_is_sent_or_stored(self) -> None:
        page = self.client.get("/emails/").content.decode()
        paths = re.findall(r'href="(/emails/[^"]+/)"', page)
        assert len(paths) == 5
        for path in paths:
            shown = self.client.get(path)
            self.assertContains(shown, "Leaf &amp; Kettle")
            self.assertNotContains(shown, "It cannot be sent.")
        assert self.emulator.request_counts == {}
        assert User.objects.count() == Order.objects.count() == 0

    def test_nobody_looks_at_them_in_production(self) -> None:
        assert self.client.get("/emails/").status_code == 404


class CalendarTests(SimpleTestCase):
    """When the digest goes out."""

    def test_next_monday_morning_lies_ahead_also_on_a_monday(self) -> None:
        berlin = ZoneInfo("Europe/Berlin")
        for day in range(5, 12):  # Monday to Sunday
            now = datetime(2026, 1, day, 7, 30, tzinfo=berlin)
            eight = datetime(2026, 1, 12, 8, tzinfo=berlin)
            assert emails.next_monday_morning(now) == eight


class PdfTests(SimpleTestCase):
    """The file format of the invoice."""

    def test_cross_reference_table_points_at_the_objects(self) -> None:
        file = pdf_page(["Invoice (draft)", "Tea \\ 5 €"])
        start = int(file.rsplit(b"startxref\n", 1)[1].split()[0])
        assert file[start:].startswith(b"xref\n0 6\n")
        offsets = [int(line[:10]) for line in file[start:].splitlines()[3:8]]
        for number, offset in enumerate(offsets, start=1):
            assert file[offset:].startswith(b"%d 0 obj" % number)

    def test_length_of_the_stream_is_told(self) -> None:
        file = pdf_page(["Invoice"])
        found = re.search(rb"/Length (\d+) >>\nstream\n(.*)\nendstream", file, re.S)
        assert found is not None
        assert int(found[1]) == len(found[2])

    def test_brackets_are_quoted_and_unknown_characters_replaced(self) -> None:
        file = pdf_page(["(茶) 5 €"])
        assert "(\\(?\\) 5 €) Tj".encode("cp1252") in file
