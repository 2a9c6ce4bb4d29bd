"""One customer's account: API keys and scopes, sending domains, suppression lists, templates."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from html import escape

from truncus_django.api import contract
from truncus_django.emulator.options import DomainState, Options, SpokenDialect
from truncus_django.emulator.refusals import INVALID_PAYLOAD, Refusal
from truncus_django.emulator.simulation import Scenario, scenario_of

_PLACE = re.compile(r"\{\{\s*([\w.-]+)\s*\}\}")
_ALL_SCOPES = frozenset({contract.SEND_SCOPE, contract.READ_SCOPE})


def fingerprint(api_key: str) -> str:
    """Return a short name for an API key from which the key cannot be found."""
    return "key_" + hashlib.sha256(api_key.encode()).hexdigest()[:12]


class Account:
    """What the emulated Truncus knows about its customer."""

    def __init__(self, options: Options) -> None:
        """Begin with what ``options`` say."""
        self._options = options
        self._domains = {name.lower(): state for name, state in options.domains.items()}
        self._domains |= {
            name.lower(): DomainState.VERIFIED.value for name in options.verified_domains
        }
        self._suppressed: set[tuple[str | None, str]] = set()
        for address in options.suppressed:
            self.suppress(address)

    def authenticate(self, authorization: str, *, scope: str) -> str:
        """Return the fingerprint of the key in an ``Authorization`` header.

        Raises:
            Refusal: 401 without a valid key, 403 when the key lacks ``scope``.
        """
        scheme, _, api_key = authorization.partition(" ")
        api_key = api_key.strip()
        if scheme.lower() != "bearer" or not api_key:
            raise _unauthorized("MISSING_API_KEY", "Authorization header missing")
        if api_key in self._options.revoked_keys:
            raise _unauthorized("API_KEY_REVOKED", "API key has been revoked")
        if not api_key.startswith(contract.API_KEY_PREFIX):
            raise _unauthorized("INVALID_API_KEY", "API key is invalid")
        known = self._options.api_keys
        if known and api_key not in known:
            raise _unauthorized("INVALID_API_KEY", "API key is invalid")
        if scope not in (known[api_key] if known else _ALL_SCOPES):
            codes = (contract.SCOPE_CODE, contract.SCOPE_CODE)
            raise Refusal(403, codes, f"API key is missing the scope {scope}")
        return fingerprint(api_key)

    def domain_state(self, domain: str) -> str:
        """Return the `DomainState` of a sending domain."""
        closed = bool(self._options.verified_domains)
        other = DomainState.NOT_FOUND if closed else DomainState.VERIFIED
        return self._domains.get(domain, other.value)

    def check_domain(self, domain: str) -> None:
        """Return quietly if email may be sent from ``domain``.

        Raises:
            Refusal: 400 in the SDK's dialect, 403 in the manual's.
        """
        state = self.domain_state(domain)
        if state != DomainState.VERIFIED:
            code, message = _DOMAIN_REFUSALS[state]
            status = 403 if self._options.dialect == SpokenDialect.MANUAL else 400
            raise Refusal(status, ("domain_not_verified", code), message, blocked=True)

    def suppress(self, address: str, tenant_id: str | None = None) -> None:
        """Put an address on a tenant's suppression list, or on everybody's with None."""
        self._suppressed.add((tenant_id, address.lower()))

    def unsuppress(self, address: str, tenant_id: str | None = None) -> None:
        """Take an address off a suppression list; quiet if it was not on it."""
        self._suppressed.discard((tenant_id, address.lower()))

    def suppressed_among(self, addresses: Iterable[str], tenant_id: str) -> list[str]:
        """Return those of ``addresses`` that are suppressed for this tenant, in order."""
        return [address for address in addresses if self._is_suppressed(address, tenant_id)]

    def _is_suppressed(self, address: str, tenant_id: str) -> bool:
        return (
            scenario_of(address) is Scenario.SUPPRESSED
            or (None, address.lower()) in self._suppressed
            or (tenant_id, address.lower()) in self._suppressed
        )

    def render(self, template_id: str, variables: Mapping[str, str]) -> str:
        """Return a template's HTML with ``{{name}}`` replaced; unknown names become empty.

        Raises:
            Refusal: 400, there are templates and this id is none of them.
        """
        templates = self._options.templates
        if templates and template_id not in templates:
            raise Refusal(400, INVALID_PAYLOAD, "Template not found")
        if not templates:
            values = "".join(f"<li>{{{{{name}}}}}</li>" for name in variables)
            source = f"<p>Template {escape(template_id)}</p><ul>{values}</ul>"
        else:
            source = templates[template_id]
        return _PLACE.sub(lambda match: escape(variables.get(match[1], "")), source)


_DOMAIN_REFUSALS = {
    DomainState.NOT_FOUND.value: (
        "DOMAIN_NOT_FOUND",
        "Sending domain not found or not configured for this project",
    ),
    DomainState.NOT_VERIFIED.value: ("DOMAIN_NOT_VERIFIED", "Domain is not verified"),
    DomainState.PAUSED.value: ("DOMAIN_PAUSED", "Domain paused"),
}


def _unauthorized(code: str, message: str) -> Refusal:
    return Refusal(401, ("invalid_api_key", code), message)
