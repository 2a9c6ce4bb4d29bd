"""The deliverability report of ``/emails/validate``: its form, and what the account knows.

It rates neither content nor history.
"""

from typing import Any

from truncus_django.emulator.account import Account
from truncus_django.emulator.options import DomainState
from truncus_django.emulator.refusals import invalid
from truncus_django.emulator.validation import bare_address

_ROLE_NAMES = frozenset({"abuse", "admin", "billing", "info", "postmaster", "sales", "support"})


def validation_answer(payload: object, account: Account) -> dict[str, Any]:
    """Return how well an email would probably arrive.

    Raises:
        Refusal: 400, a field is missing or no string.
    """
    fields = _text_fields(payload)
    to, sender = bare_address(fields["to"]), bare_address(fields["from"])
    verified = _is_verified(sender, account)
    suppressed = bool(to and account.suppressed_among([to], ""))
    is_role_based = bool(to) and (to or "").partition("@")[0].lower() in _ROLE_NAMES
    warnings = ["Recipient is a role-based address (higher bounce risk)"] if is_role_based else []
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
            "to_address_disposable": False,
            "to_address_role_based": is_role_based,
            "to_address_suppressed": suppressed,
            "spam_score": 0,
            "spam_risk": "low",
            "subject_quality": "good",
            "content_issues": issues,
            "recipient_history": {
                "previous_sends": 0,
                "last_bounce": None,
                "last_complaint": None,
            },
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


def _recommendation(valid: bool, warnings: list[str], issues: list[str]) -> str:
    if not valid:
        return "do_not_send"
    return "send_with_caution" if issues or len(warnings) > 1 else "safe_to_send"


def _is_verified(sender: str | None, account: Account) -> bool:
    if sender is None:
        return False
    return account.domain_state(sender.rpartition("@")[2].lower()) == DomainState.VERIFIED
