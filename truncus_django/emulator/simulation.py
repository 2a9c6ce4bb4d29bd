"""What happens to an email after it was sent, told by the local part of its recipient.

===============  ================================================================================
local part       what happens
===============  ================================================================================
``bounce``       bounces; ``bounce+mailbox_full@…`` chooses one of the manual's reasons
``complaint``    is delivered, then the recipient complains
``suppressed``   is on every suppression list
``deferred``     is queued first and delivered later
``open``         is delivered, then opened
``click``        is delivered, opened, then a link is clicked
anything else    is delivered
===============  ================================================================================

A tag makes addresses distinct: ``bounce+42@example.com`` bounces as ``bounce@example.com`` does.
"""

from collections.abc import Iterable
from enum import StrEnum

from truncus_django.api import contract

DEFAULT_BOUNCE_REASON = "mailbox_does_not_exist"


class Scenario(StrEnum):
    """The simulated fates of an email, named as the local parts that choose them."""

    DELIVER = "deliver"
    BOUNCE = "bounce"
    COMPLAINT = "complaint"
    SUPPRESSED = "suppressed"
    DEFERRED = "deferred"
    OPEN = "open"
    CLICK = "click"


_BY_LOCAL_PART = {scenario.value: scenario for scenario in Scenario}


def scenario_of(address: str) -> Scenario:
    """Return what the local part of ``address`` asks for."""
    name = address.lower().partition("@")[0].partition("+")[0]
    return _BY_LOCAL_PART.get(name, Scenario.DELIVER)


def scenario_of_all(addresses: Iterable[str]) -> Scenario:
    """Return the scenario of the first of ``addresses`` that asks for one."""
    for address in addresses:
        scenario = scenario_of(address)
        if scenario not in {Scenario.DELIVER, Scenario.SUPPRESSED}:
            return scenario
    return Scenario.DELIVER


def bounce_reason(addresses: Iterable[str]) -> str:
    """Return the reason with which the first bouncing address of ``addresses`` bounces."""
    for address in addresses:
        if scenario_of(address) is Scenario.BOUNCE:
            tag = address.lower().partition("@")[0].partition("+")[2]
            return tag if tag in contract.BOUNCE_REASONS else DEFAULT_BOUNCE_REASON
    return DEFAULT_BOUNCE_REASON
