"""ACCOUNTS: whose account an email goes by, and what a resolver may get wrong."""

import logging
import pickle
import traceback
from typing import Any

import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.views.debug import SafeExceptionReporterFilter

from truncus_django.accounts import AccountUnavailable, get_account
from truncus_django.api.errors import MessageError, MessagesNotSent
from truncus_django.backend import TruncusBackend
from truncus_django.checks import check_settings
from truncus_django.emulator.account import fingerprint
from truncus_django.message import TruncusMessage
from truncus_django.models import AccountQuota, Email
from truncus_django.quota.overview import quotas
from truncus_django.signals import pre_send

pytestmark = pytest.mark.django_db

KEYS = {"acme": "tr_test_acme_key", "zenith": "tr_test_zenith_key"}
OWN = "tr_test_own_key"


def account_for(tenant: str, mailer: str) -> dict[str, Any] | None:
    """Of tenants with a key their own account; ``shared`` has none; others are not known."""
    if tenant == "shared":
        return None
    return {"api_key": KEYS[tenant]}


@pytest.fixture
def emulator(truncus_emulator):
    scopes = ("send", "read_events")
    truncus_emulator.reset(api_keys=dict.fromkeys([*KEYS.values(), OWN, "tr_test_new"], scopes))
    return truncus_emulator


@pytest.fixture(autouse=True)
def accounts(settings, emulator):
    """Return a function that sets ``ACCOUNTS``, which is :func:`account_for` at first."""

    def use(given):
        settings.TRUNCUS = {
            **settings.TRUNCUS,
            "API_KEY": OWN,
            "BASE_URL": emulator.url,
            "ACCOUNTS": given,
            "MAX_RETRIES": 0,
            "RECORD": True,
        }

    use(f"{__name__}.account_for")
    return use


def message(number: int = 0, **options: Any) -> TruncusMessage:
    return TruncusMessage(
        f"Order {number}",
        options.pop("text", "On its way."),
        "shop@example.com",
        options.pop("to", [f"customer-{number}@example.org"]),
        html="<p>On its way.</p>",
        **options,
    )


def keys_of(emulator):
    """Return the key that each email came by, oldest first, as the names that tests give them."""
    names = {fingerprint(key): name for name, key in {**KEYS, "own": OWN}.items()}
    return [names[email.api_key] for email in emulator.emails]


# Whose account ------------------------------------------------------------------------------------


def test_an_email_goes_by_the_account_of_its_tenant(emulator):
    for tenant in ("acme", "zenith", "shared", None):
        message(tenant_id=tenant).send()
    assert keys_of(emulator) == ["acme", "zenith", "own", "own"]


def test_the_tenant_of_the_settings_counts(emulator, settings):
    settings.TRUNCUS = {**settings.TRUNCUS, "TENANT_ID": "acme"}
    mail.send_mail("Hello", "Text", "shop@example.com", ["ann@example.org"])
    assert keys_of(emulator) == ["acme"]


@pytest.mark.parametrize("place", ["esp_extra", "pre_send"])
def test_the_tenant_that_the_email_has_in_the_end_counts(emulator, place):
    def receiver(sender, message, payload, **kwargs):
        payload["tenant_id"] = "zenith"

    one = message(tenant_id="acme")
    if place == "esp_extra":
        one.esp_extra = {"tenant_id": "zenith"}
        one.send()
    else:
        pre_send.connect(receiver, sender=TruncusBackend)
        try:
            one.send()
        finally:
            pre_send.disconnect(receiver, sender=TruncusBackend)
    assert keys_of(emulator) == ["zenith"]


def test_a_list_is_parted_by_account_and_each_tenant_is_asked_for_once(emulator, accounts):
    asked = []

    def resolver(tenant, mailer):
        asked.append((tenant, mailer))
        return account_for(tenant, mailer)

    accounts(resolver)
    tenants = ["acme", "zenith", None, "shared"] * 3
    messages = [message(number, tenant_id=tenant) for number, tenant in enumerate(tenants)]

    assert TruncusBackend().send_messages(messages) == 12

    assert sorted(keys_of(emulator)) == ["acme"] * 3 + ["own"] * 6 + ["zenith"] * 3
    assert len(emulator.requests) == 3  # one for each account: a request is for one alone
    by_subject = {email.subject: email.tenant_id for email in emulator.emails}
    assert by_subject["Order 0"] == "acme"
    assert by_subject["Order 1"] == "zenith"
    assert sorted(tenant for tenant, _ in asked) == ["acme", "shared", "zenith"]
    assert len({mailer for _, mailer in asked}) == 1
    assert all(each.truncus_status.is_accepted for each in messages)


def test_a_replaced_key_is_used_at_the_next_send(emulator, accounts):
    keys = ["tr_test_new", KEYS["acme"]]
    accounts(lambda tenant, mailer: {"API_KEY": keys.pop()})
    message(1, tenant_id="acme").send()
    message(2, tenant_id="acme").send()
    used = [email.api_key for email in emulator.emails]
    assert used == [fingerprint(KEYS["acme"]), fingerprint("tr_test_new")]


def test_a_lost_answer_is_repeated_by_the_same_account_alone(emulator, accounts):
    one = message(tenant_id="acme")
    emulator.faults.next("reset_after")
    with pytest.raises(Exception, match="It is not known whether"):
        one.send()
    one.send()
    assert keys_of(emulator) == ["acme"]  # under its key, and so once

    other = message(7, tenant_id="acme")
    emulator.faults.next("reset_after")
    with pytest.raises(Exception, match="It is not known whether"):
        other.send()
    accounts(lambda tenant, mailer: {"api_key": "tr_test_new"})
    other.send()  # as with any other key: that account knows nothing of it
    assert [email.subject for email in emulator.emails] == ["Order 0", "Order 7", "Order 7"]


def test_a_lost_answer_is_not_sent_anew_while_its_account_is_not_to_be_had(
    emulator, accounts, settings
):
    one = message(tenant_id="acme")
    emulator.faults.next("reset_after")
    with pytest.raises(Exception, match="It is not known whether"):
        one.send()
    accounts({}.__getitem__)
    for delivery in ("direct", "outbox"):
        settings.TRUNCUS = {**settings.TRUNCUS, "DELIVERY": delivery}
        with pytest.raises(AccountUnavailable):
            one.send()
    assert emulator.accepted == 1


def test_merge_data_in_two_accounts_reach_nobody_twice(emulator):
    def receiver(sender, message, payload, **kwargs):
        payload["tenant_id"] = "zenith" if "b@example.org" in payload["to"] else "acme"

    both = message(to=["a@example.org", "b@example.org"], text="For {{ name }}")
    both.merge_data = {"a@example.org": {"name": "A"}, "b@example.org": {"name": "B"}}
    pre_send.connect(receiver, sender=TruncusBackend)
    emulator.faults.next("reset_after")
    try:
        with pytest.raises(MessagesNotSent):
            both.send()
        both.send()
    finally:
        pre_send.disconnect(receiver, sender=TruncusBackend)
    assert sorted(keys_of(emulator)) == ["acme", "zenith"]
    assert sorted(str(email.to[0]) for email in emulator.emails) == [
        "a@example.org",
        "b@example.org",
    ]


def test_other_settings_of_the_account_hold(emulator, accounts):
    accounts(
        lambda tenant, mailer: {
            "api_key": KEYS[tenant],
            "requests_per_minute": 7,
            "quota_reserve": 3,
            "dialect": "sdk",
        }
    )
    found = get_account("", "acme")
    assert found.settings.requests_per_minute == 7
    assert found.settings.quota_reserve == 3
    assert found.settings.requests_per_second == 10
    assert found.tenant == "acme"
    assert get_account("", "").settings.requests_per_minute != 7


@pytest.mark.django_db(transaction=True)
def test_each_account_has_a_quota_of_its_own(emulator):
    message(tenant_id="acme").send()
    message(tenant_id="zenith").send()
    message().send()
    assert AccountQuota.objects.count() == 3
    assert [(quota.tenant, quota.used) for quota in quotas() if quota.tenant] == [
        ("acme", 1),
        ("zenith", 1),
    ]
    assert any(quota.name.endswith("tenant acme") for quota in quotas())


# What a resolver may get wrong --------------------------------------------------------------------


def unknown(tenant, mailer):
    raise LookupError("no such tenant: ann@example.org, tr_live_secret")


WRONG = {
    "raises": (unknown, "ACCOUNTS raised LookupError"),
    "takes nothing": (lambda: None, "ACCOUNTS raised TypeError"),
    "a string": (lambda tenant, mailer: "tr_live_secret", "not str"),
    "a bool": (lambda tenant, mailer: True, "not bool"),
    "no key": (lambda tenant, mailer: {"api_key": None}, "no API key"),
    "an empty key": (lambda tenant, mailer: {"api_key": ""}, "no API key"),
    "a number": (lambda tenant, mailer: {"api_key": 5}, "API_KEY must be a string"),
    "another's key": (lambda tenant, mailer: {"api_key": "sk_secret"}, "does not begin with 'tr_'"),
    "a name of nothing": (lambda tenant, mailer: {"apikey": "tr_live_secret"}, "did you mean"),
    "a key as a name": (lambda tenant, mailer: {"tr_live_secret": 1}, "which no account has"),
    "of the project": (
        lambda tenant, mailer: {"api_key": KEYS["acme"], "delivery": "outbox"},
        "'delivery', which no account has",
    ),
    "a bad URL": (
        lambda tenant, mailer: {"api_key": KEYS["acme"], "base_url": "http://example.org"},
        "cannot be used",
    ),
    "a fallback that is none": (
        lambda tenant, mailer: {"api_key": KEYS["acme"], "fallback_mailer": "nowhere"},
        "FALLBACK_MAILER",
    ),
}


@pytest.mark.parametrize(("resolver", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_refuses_the_emails_of_its_tenant_alone(
    resolver, says, emulator, accounts, caplog
):
    accounts(lambda tenant, mailer: None if tenant == "shared" else resolver(tenant, mailer))
    if says == "ACCOUNTS raised TypeError":
        accounts(resolver)
    messages = [message(1, tenant_id="shared"), message(2, tenant_id="gone"), message(3)]
    if says == "ACCOUNTS raised TypeError":
        messages = messages[1:]

    with caplog.at_level(logging.DEBUG), pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(messages)

    [failure] = caught.value.failures
    assert isinstance(failure.error, AccountUnavailable)
    assert isinstance(failure.error, ImproperlyConfigured)
    assert failure.message.tenant_id == "gone"
    assert says in str(failure.error)
    assert emulator.accepted == len(messages) - 1
    assert Email.objects.get(tenant_id="gone").state == "failed"
    told = str(caught.value) + repr(failure.error) + caplog.text
    told += "".join(traceback.format_exception(failure.error))
    told += Email.objects.get(tenant_id="gone").error
    for secret in ("secret", "acme_key", "@example.org"):
        assert secret not in told


def test_its_error_survives_a_task_queue():
    with pytest.raises(AccountUnavailable) as caught:
        get_account("", "gone")
    copied = pickle.loads(pickle.dumps(caught.value))
    assert str(copied) == str(caught.value)


def test_the_frames_of_its_error_hold_no_key(accounts):
    secret = "tr_live_0123456789"
    accounts(lambda tenant, mailer: {"api_key": secret, "requests_per_second": "many"})
    with pytest.raises(AccountUnavailable) as caught:
        get_account("", "acme")
    hides = SafeExceptionReporterFilter()
    hides.is_active = lambda request: True
    step = caught.value.__traceback__
    while step is not None:
        if "truncus_django" in step.tb_frame.f_code.co_filename:
            shown = hides.get_traceback_frame_variables(None, step.tb_frame)
            assert secret not in repr(shown)
        step = step.tb_next


def test_a_silent_send_raises_it_as_it_is_about_settings(accounts):
    accounts(unknown)
    with pytest.raises(AccountUnavailable):
        TruncusBackend(fail_silently=True).send_messages([message(tenant_id="gone")])


@pytest.mark.parametrize("tenant", ["a" * 256, 5, "a\nb", "acme "])
def test_a_tenant_that_no_row_can_name_is_refused(tenant, emulator):
    one = message()
    one.esp_extra = {"tenant_id": tenant}
    with pytest.raises(MessageError, match="tenant_id must be a string"):
        one.send()
    assert emulator.accepted == 0


def test_no_repr_holds_a_key(emulator):
    found = get_account("", "acme")
    assert "acme_key" not in repr(found) + repr(found.settings) + repr(found.client)


# The setting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "id_", "says"),
    [
        ("shop.nowhere.account_for", "truncus.E013", "cannot be imported"),
        (f"{__name__}.KEYS", "truncus.E013", "no callable"),
        ("account_for", "truncus.E002", "dotted path"),
        ({"acme": "tr_test_acme"}, "truncus.E002", "must be a callable"),
        ("tr_live_a b", "truncus.E002", "must be a callable"),
    ],
)
def test_a_setting_that_is_no_callable_is_found_by_the_checks(accounts, given, id_, says):
    accounts(given)
    [found] = [each for each in check_settings() if each.id == id_]
    assert says in found.msg
    assert "tr_" not in found.msg


def test_without_an_importable_resolver_nothing_of_a_tenant_goes_by_another_account(
    accounts, emulator
):
    accounts("shop.nowhere.account_for")
    with pytest.raises(ImproperlyConfigured, match="cannot be imported"):
        message(tenant_id="acme").send()
    assert emulator.accepted == 0
    message().send()
    assert keys_of(emulator) == ["own"]


def test_a_mailer_cannot_have_its_own(settings):
    settings.MAILERS = {
        "default": {
            "BACKEND": "truncus_django.backend.TruncusBackend",
            "OPTIONS": {"accounts": f"{__name__}.account_for"},
        }
    }
    assert "truncus.E005" in [found.id for found in check_settings()]


def test_a_project_may_have_no_key_of_its_own(settings, emulator):
    settings.TRUNCUS = {**settings.TRUNCUS, "API_KEY": None}
    assert [found.id for found in check_settings() if "key" in found.msg] == []
    messages = [message(0, tenant_id="acme"), message(1), message(2, tenant_id="shared")]
    with pytest.raises(MessagesNotSent) as caught:
        TruncusBackend().send_messages(messages)
    assert [failure.index for failure in caught.value.failures] == [1, 2]
    assert "There is no API key" in str(caught.value.failures[0].error)
    assert keys_of(emulator) == ["acme"]
    assert Email.objects.count() == 3


def test_a_wrong_key_of_the_mailer_keeps_no_tenant_from_sending(settings, emulator):
    settings.TRUNCUS = {**settings.TRUNCUS, "API_KEY": "sk_wrong"}
    with pytest.raises(MessagesNotSent):
        TruncusBackend().send_messages([message(0, tenant_id="acme"), message(1)])
    assert keys_of(emulator) == ["acme"]
