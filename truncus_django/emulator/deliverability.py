"""The deliverability report of ``/emails/validate``: a pure reading of one email."""

import re
from typing import Any

from truncus_django.emulator.account import Account
from truncus_django.emulator.mailbox import Mailbox, iso
from truncus_django.emulator.options import DomainState
from truncus_django.emulator.refusals import invalid
from truncus_django.emulator.validation import bare_address

_ROLE_NAMES = frozenset({"abuse", "admin", "billing", "info", "postmaster", "sales", "support"})
_DISPOSABLE_DOMAINS = frozenset({"mailinator.com", "guerrillamail.com", "10minutemail.com"})
_SPAM_WORDS = re.compile(r"\b(free money|winner|act now|viagra|lottery)\b", re.IGNORECASE)
_HISTORY_DEPTH = 1000


def validation_answer(payload: object, account: Account, mailbox: Mailbox) -> dict[str, Any]:
    """Return how well an email would probably arrive.

    Raises:
        Refusal: 400, a field is missing or no string.
    """
    fields = _text_fields(payload)
    to, sender = bare_address(fields["to"]), bare_address(fields["from"])
    verified = _is_verified(sender, account)
    suppressed = bool(to and account.suppressed_among([to], ""))
    warnings, spam_score = _warnings(fields, to)
    issues = [] if fields.get("html") or fields.get("text") else ["The content is empty"]
    if not verified:
        warnings.append("The sending domain is not verified")
    if suppressed:
        warnings.append("Recipient is suppressed")
    valid = bool(to) and verified and not suppressed
    confidence = max(0.0, 1.0 - 0.05 * len(warnings) - 0.1 * len(issues)) if valid else 0.0
    return {
        "valid": valid,
        "confidence_score": round(confidence, 2),
        "checks": {
            "from_domain_verified": verified,
            "from_domain_healthy": {"spf": verified, "dkim": verified, "dmarc": verified},
            "to_address_format": bool(to),
            "to_domain_exists": bool(to),
            "to_address_disposable": _is_disposable(to),
            "to_address_role_based": _is_role_based(to),
            "to_address_suppressed": suppressed,
            "spam_score": spam_score,
            "spam_risk": "low" if spam_score < 3 else "high",
            "subject_quality": "poor" if fields["subject"].isupper() else "good",
            "content_issues": issues,
            "recipient_history": _history(to, mailbox),
        },
        "warnings": warnings,
        "recommendation": _recommendation(valid, warnings, issues),
    }


def _text_fields(payload: object) -> dict[str, str]:
    if not isinstance(payload, dict):
        raise invalid("The email must be a JSON object")
    fields = {}
    for name in ("from", "to", "subject", "html", "text"):
        value = payload.get(name)
        if value is None and name in {"html", "text"}:
            continue
        if not isinstance(value, str) or not value.strip():
            raise invalid(f"{name} must be a string")
        fields[name] = value
    return fields


def _warnings(fields: dict[str, str], to: str | None) -> tuple[list[str], int]:
    warnings = []
    spam_score = 5 * len(_SPAM_WORDS.findall(fields["subject"] + fields.get("html", "")))
    if _is_role_based(to):
        warnings.append("Recipient is a role-based address (higher bounce risk)")
    if _is_disposable(to):
        warnings.append("Recipient uses a disposable address")
    if fields["subject"].isupper():
        warnings.append("Subject is all in capitals")
        spam_score += 1
    if spam_score >= 3:
        warnings.append("The content looks like spam")
    return warnings, spam_score


def _recommendation(valid: bool, warnings: list[str], issues: list[str]) -> str:
    if not valid:
        return "do_not_send"
    return "send_with_caution" if issues or len(warnings) > 1 else "safe_to_send"


def _is_verified(sender: str | None, account: Account) -> bool:
    if sender is None:
        return False
    return account.domain_state(sender.rpartition("@")[2].lower()) == DomainState.VERIFIED


def _is_role_based(address: str | None) -> bool:
    return bool(address) and (address or "").partition("@")[0].lower() in _ROLE_NAMES


def _is_disposable(address: str | None) -> bool:
    return bool(address) and (address or "").rpartition("@")[2].lower() in _DISPOSABLE_DOMAINS


def _history(to: str | None, mailbox: Mailbox) -> dict[str, Any]:
    """Return what the newest emails tell about a recipient."""
    seen: dict[str, Any] = {"previous_sends": 0, "last_bounce": None, "last_complaint": None}
    for number, email in enumerate(mailbox.newest()):
        if number >= _HISTORY_DEPTH:
            break
        if to not in email.draft.to:
            continue
        seen["previous_sends"] += 1
        for event in email.events:
            if event.type == "bounced":
                seen["last_bounce"] = seen["last_bounce"] or iso(event.at)
            if event.type == "complained":
                seen["last_complaint"] = seen["last_complaint"] or iso(event.at)
    return seen
