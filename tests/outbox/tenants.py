"""``ACCOUNTS`` of the sites that tests start: each tenant has an account of its own."""

from typing import Any


def account_for(tenant: str, mailer: str) -> dict[str, Any] | None:
    return {"api_key": f"tr_test_{tenant}", "requests_per_minute": 0, "requests_per_second": 0}
