"""A process that sends emails, and says which thresholds of the quota it tells."""

import sys
from typing import Any

import django


def main(count: int) -> None:
    """Send so many emails, one after the other."""
    django.setup()
    from django.core.mail import send_mail

    from truncus_django.signals import quota_threshold

    def receive(share: float, **facts: Any) -> None:
        print(f"told {share:.0%}", flush=True)

    quota_threshold.connect(receive)
    for number in range(count):
        send_mail(f"Order {number}", "It is on its way.", None, ["ann@example.org"])
    print("sent", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
