"""Keys, addresses and content stay where they belong, also in reports and on the way to tasks."""

import pickle
from pprint import pformat

import pytest
from django.core.mail import EmailMessage

from truncus_django.api.errors import ConfigurationError, InvalidRequest, TruncusError
from truncus_django.backend import TruncusBackend

KEY = "tr_live_0123456789abcdef"


@pytest.mark.parametrize("dialect", ["manual", "sdk"])
@pytest.mark.parametrize("count", [1, 2])
def test_an_error_report_shows_no_key_address_or_content(truncus_emulator, backend, dialect, count):
    truncus_emulator.reset(dialect=dialect, batch_refusal="whole")
    messages = [
        EmailMessage(
            "Reset it", "https://shop/secret-link", None, ["a@zelda.example", "b@c.example"]
        )
        for _ in range(count)
    ]
    for message in messages:
        message.esp_extra = {"metadata": "wrong"}
    with pytest.raises(TruncusError) as caught:
        backend(api_key=KEY).send_messages(messages)

    frames = [frame for frame in caught.traceback if "/truncus_django/" in str(frame.path)]
    shown = {
        f"{frame.name}: {name}": pformat(value)
        for frame in frames
        for name, value in frame.frame.f_locals.items()
    }
    assert len(shown) >= 10
    for secret in (KEY, "secret-link", "zelda", "Reset it"):
        assert {place: value for place, value in shown.items() if secret in value} == {}


def test_a_pickled_backend_leaves_its_key_behind():
    backend = TruncusBackend(api_key=KEY, tenant_id="acme")
    travelled = pickle.dumps(backend)

    assert KEY.encode() not in travelled
    with pytest.raises(ConfigurationError, match="keys do not travel"):
        pickle.loads(travelled).send_messages([EmailMessage("x", "x", to=["a@example.org"])])


def test_a_pickled_backend_that_goes_by_the_settings_still_sends(truncus_emulator):
    backend = pickle.loads(pickle.dumps(TruncusBackend(tenant_id="acme")))

    assert backend.send_messages([EmailMessage("x", "x", to=["a@example.org"])]) == 1
    assert truncus_emulator.emails[0].tenant_id == "acme"


def test_a_message_whose_send_is_in_doubt_keeps_its_key_when_pickled(truncus_emulator, backend):
    truncus_emulator.faults.next("reset_after")
    message = EmailMessage("x", "x", to=["a@example.org"])
    with pytest.raises(TruncusError):
        backend(max_retries=0).send_messages([message])

    backend().send_messages([pickle.loads(pickle.dumps(message))])

    assert truncus_emulator.accepted == 1


def test_what_the_api_writes_is_freed_of_addresses(truncus_emulator, backend):
    message = EmailMessage("x", "x", to=["a@example.org"])
    message.esp_extra = {"to": "zelda@localhost@"}

    with pytest.raises(InvalidRequest) as caught:
        backend().send_messages([message])
    assert "zelda" not in str(caught.value)
