"""What answers tell of quotas is kept: seldom, for every process, and in nobody's way."""

import pytest
from django.core.mail import send_mail

from truncus_django.models import AccountQuota
from truncus_django.quota.overview import quotas

pytestmark = pytest.mark.django_db(transaction=True)


def send(number: int = 0, sender: str = "shop@example.com") -> None:
    send_mail(f"Order {number}", "It is on its way.", sender, ["ann@example.org"])


def test_the_first_answer_is_kept(emulator):
    send()

    [quota] = quotas()
    assert (quota.limit, quota.used, quota.left) == (10, 1, 9)
    assert quota.share == 0.1
    assert not quota.is_stale


def test_each_threshold_is_told_once(emulator, told):
    for number in range(10):
        send(number)
    for number in range(3):
        with pytest.raises(OSError, match="Monthly limit"):
            send(number)

    assert [facts["share"] for facts in told] == [0.8, 1.0]
    assert AccountQuota.objects.get().remaining == 0
