"""TruncusMessage and the status that a send leaves."""

import copy
import pickle

import pytest
from django.core.mail import EmailMultiAlternatives

from truncus_django.api.results import SendResult
from truncus_django.message import OPTION_NAMES, TruncusMessage, TruncusStatus


@pytest.mark.parametrize("name", sorted(OPTION_NAMES))
def test_option_is_taken_as_keyword_and_as_attribute(name):
    by_keyword, by_attribute = TruncusMessage(**{name: "x"}), TruncusMessage()
    assert getattr(by_attribute, name) is None
    setattr(by_attribute, name, "x")
    assert getattr(by_keyword, name) == getattr(by_attribute, name) == "x"


def test_django_arguments_are_taken():
    given = {
        "cc": ["c@example.com"],
        "bcc": ["d@example.com"],
        "reply_to": ["e@example.com"],
        "headers": {"X-A": "1"},
        "attachments": [("a.txt", "A", "text/plain")],
        "alternatives": [("<p>", "text/html")],
    }
    arguments = ("Subject", "Body", "a@example.com", ["b@example.com"])
    message = TruncusMessage(*arguments, **given)
    assert vars(message).items() >= vars(EmailMultiAlternatives(*arguments, **given)).items()


def test_html_is_an_alternative_of_the_text():
    message = TruncusMessage("Subject", "Text", html="<p>HTML</p>")
    assert message.body == "Text"
    assert message.alternatives == [("<p>HTML</p>", "text/html")]


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("tenant", "tenant_id"),
        ("idempotencykey", "idempotency_key"),
        ("track_open", "track_opens"),
        ("send_on", "send_at"),
        ("meta_data", "metadata"),
        ("replyto", "reply_to"),
        ("htm", "html"),
    ],
)
def test_misspelt_keyword_is_refused_with_the_one_that_was_meant(misspelt, meant):
    with pytest.raises(TypeError, match=f"no option '{misspelt}'; did you mean '{meant}'"):
        TruncusMessage(**{misspelt: "x"})


@pytest.mark.parametrize("name", ["tags", "colour"])
def test_unknown_keyword_is_refused(name):
    with pytest.raises(TypeError, match=f"no option '{name}'"):
        TruncusMessage(**{name: "x"})


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("tenant", "tenant_id"),
        ("template", "template_id"),
        ("idempotency", "idempotency_key"),
        ("track_open", "track_opens"),
        ("sendat", "send_at"),
        ("meta_data", "metadata"),
        ("variable", "variables"),
        ("sand_box", "sandbox"),
    ],
)
def test_misspelt_attribute_is_refused_with_the_one_that_was_meant(misspelt, meant):
    with pytest.raises(AttributeError, match=f"no option '{misspelt}'; did you mean '{meant}'"):
        setattr(TruncusMessage(), misspelt, "x")


@pytest.mark.parametrize(
    "name", ["subject", "body", "content_subtype", "encoding", "order", "_sent"]
)
def test_other_attributes_can_be_set(name):
    message = TruncusMessage()
    setattr(message, name, "x")
    assert getattr(message, name) == "x"


def test_status_is_none_before_the_send():
    assert TruncusMessage().truncus_status is None


def test_message_survives_pickling_and_copying():
    message = TruncusMessage("Subject", "Body", html="<p>", metadata={"order": "42"})
    for again in (pickle.loads(pickle.dumps(message)), copy.deepcopy(message)):
        assert vars(again) == vars(message)
        assert type(again) is TruncusMessage


def test_accepted_is_what_truncus_answered():
    assert TruncusStatus("sent", answer=SendResult(status="sent")).is_accepted
    assert not TruncusStatus("blocked", answer=SendResult(status="blocked")).is_accepted
    assert not TruncusStatus("failed").is_accepted
