"""What a failure says: how many there are, which comes closest, and what is different about it."""

import re
from textwrap import dedent

import pytest
from django.core import mail
from django.core.mail import EmailMultiAlternatives

from truncus_django.testing import assert_email_sent, assert_no_email_sent


def message(subject="Your order 1", text="Text", html="", to="ann@example.org"):
    made = EmailMultiAlternatives(subject, text, "Shop <shop@example.com>", [to])
    if html:
        made.attach_alternative(html, "text/html")
    return made


def failure(*messages, check=assert_email_sent, **criteria):
    mail.outbox = list(messages)
    with pytest.raises(AssertionError) as caught:
        check(**criteria)
    return str(caught.value)


def text(expected):
    return dedent(expected).strip()


def test_each_criterion_that_differs_is_shown():
    shown = failure(
        message(),
        message("Your order 2", to="bob@example.org", text="https://a.example/ https://b.example/"),
        message("Welcome", to="ann@example.org"),
        to=["Bob <bob@example.com>", "eve@example.org"],
        subject="Your order 3",
        from_email="shop@example.com",
        link="/orders/3/",
    )

    assert shown == text("""
        No email is as expected; 3 emails were sent.
        The nearest:
          'Your order 2' to bob@example.org
        As expected: from_email.
        Different:
          to
            exactly   Bob <bob@example.com>
                      eve@example.org
            found     bob@example.org
          subject
            expected  'Your order 3'
            found     'Your order 2'
          link
            expected  '/orders/3/'
            found     https://a.example/
                      https://b.example/
    """)


def test_patterns_senders_and_what_is_not_there_are_shown():
    shown = failure(
        message(text="", html="<p>Hello</p>"),
        subject=re.compile(r"order \d{3}"),
        from_email="Store <store@example.com>",
        text_contains="Hello",
        link=re.compile("/orders/"),
    )

    assert shown == text(r"""
        No email is as expected; 1 email was sent.
        The nearest:
          'Your order 1' to ann@example.org
        Different:
          subject
            expected  /order \d{3}/
            found     'Your order 1'
          from_email
            expected  Store <store@example.com>
            found     Shop <shop@example.com>
          text_contains
            expected  'Hello'
            found     nothing: the email has no text
          link
            expected  /\/orders\//
            found     no link at all
    """).replace(r"\/orders\/", "/orders/")


def test_long_subjects_are_shown_as_a_diff():
    long = "The quarterly report of the tea shop about the sales of all kinds of {}"

    shown = failure(message(long.format("Assam")), subject=long.format("Ceylon"))

    assert shown.splitlines()[4:] == [
        "  subject",
        "    - expected, + found",
        f"    - {long.format('Ceylon')}",
        *[line for line in shown.splitlines() if line.startswith("    ?")][:1],
        f"    + {long.format('Assam')}",
        *[line for line in shown.splitlines() if line.startswith("    ?")][1:],
    ]


def test_of_a_long_text_the_lines_that_come_closest_are_shown():
    body = "\n".join(f"Line {number} of the terms." for number in range(400))
    body += "\nDear Bob Miller,\n\nthank you for your order.\n" + body

    shown = failure(
        message(text=body), text_contains="Dear Ann Miller,\n\nthank you for your order."
    )

    assert "    - Dear Ann Miller," in shown.splitlines()
    assert "    + Dear Bob Miller," in shown.splitlines()
    assert "terms" not in shown
    assert len(shown.splitlines()) < 12


def test_of_html_on_one_line_the_elements_that_come_closest_are_shown():
    html = "".join(f"<tr><td>Row {number}</td></tr>" for number in range(300))
    html += "<h1>Thank you, Ann &amp; Co!</h1>" + html

    shown = failure(message(html=html), html_contains="<h1>Thank you, Ann & Co!</h1>")

    assert "    - <h1>Thank you, Ann & Co!</h1>" in shown.splitlines()
    assert "    + <h1>Thank you, Ann &amp; Co!</h1>" in shown.splitlines()
    assert "Row" not in shown


def test_a_body_with_nothing_like_it_is_shown_by_how_it_begins():
    shown = failure(message(text="The beginning. " * 40), text_contains="zzz")

    assert "expected  'zzz'" in shown
    assert "found     600 characters, which begin 'The beginning. The" in shown
    assert max(map(len, shown.splitlines())) < 200


def test_of_many_recipients_and_links_the_first_are_shown():
    many = message(text=" ".join(f"https://a.example/{number}" for number in range(30)))
    shown = failure(many, link="/no")

    assert "https://a.example/11" in shown
    assert "https://a.example/12" not in shown
    assert "and 18 more" in shown


def test_the_nearest_is_the_one_that_meets_most_and_then_is_most_alike():
    messages = [
        message("Welcome to the shop", to="bob@example.org"),
        message("Your order 14", to="eve@example.org"),
        message("Your password", to="ann@example.org"),
    ]

    assert "'Your password' to ann" in failure(
        *messages, to="ann@example.org", subject="Your order 13"
    )
    assert "'Your order 14' to eve" in failure(*messages, subject="Your order 13")
    assert "'Your password' to ann" in failure(*messages, html_contains="x")  # the newest


def test_a_count_that_differs_is_shown_with_those_that_are_there():
    messages = [message("A"), message("B"), message("C", to="bob@example.org")]

    assert failure(*messages, to="ann@example.org", count=3) == text("""
        3 expected, and 2 of 3 emails are as expected:
          'A' to ann@example.org
          'B' to ann@example.org
        The nearest:
          'C' to bob@example.org
        Different:
          to
            expected  ann@example.org
            found     bob@example.org
    """)
    assert failure(*messages, count=2) == text("""
        2 expected, and 3 of 3 emails are as expected:
          'A' to ann@example.org
          'B' to ann@example.org
          'C' to bob@example.org
    """)
    assert failure(*messages, subject="D", count=2).startswith("No email is as expected; 3")


def test_what_was_sent_and_should_not_be_is_shown():
    messages = [message(f"Order {number}") for number in range(12)]

    shown = failure(*messages, check=assert_no_email_sent).splitlines()
    assert shown[0] == "12 emails were sent that should not be:"
    assert shown[1] == "  'Order 0' to ann@example.org"
    assert shown[-1] == "  and 2 more"
    assert failure(*messages, check=assert_no_email_sent, subject="Order 7") == text("""
        1 email was sent that should not be, of 12 in all:
          'Order 7' to ann@example.org
    """)


@pytest.mark.django_db
def test_it_is_told_what_still_waits_in_the_outbox(truncus_emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": "outbox"}
    message().send()

    assert "'Your order 1' to ann@example.org (waits in the outbox)" in failure(subject="x")
