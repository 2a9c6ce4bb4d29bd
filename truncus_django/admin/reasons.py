"""Why an email did not arrive, in words for support, and what to do about it.

Truncus gives the reasons of bounces and rejections as words such as ``mailbox_full``
(:data:`~truncus_django.api.contract.BOUNCE_REASONS`,
:data:`~truncus_django.api.contract.REJECTION_REASONS`). For complaints it passes on the type of
feedback that the recipient's provider reported: those of RFC 5965, RFC 6430 and RFC 6591. Errors
have codes, of Truncus's or of this package.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from truncus_django.models import Email
from truncus_django.states import OUTBOX_STATES, State


class Explanation(NamedTuple):
    """A reason in words, each perhaps lazily translated.

    Attributes:
        name: some words, for lists and tables.
        text: what happened, in a sentence.
        advice: what to do about it, in one or more sentences.
        while_waiting: what to do as long as the outbox still tries to send it; ``advice`` if empty.
    """

    name: Any
    text: Any
    advice: Any
    while_waiting: Any = ""


_BY_ITSELF = _("Nothing: it is tried again by itself.")


def _repairable(name: Any, text: Any, repair: Any) -> Explanation:
    """Return the explanation of what has a cause that somebody removes, or time."""
    return Explanation(
        name,
        text,
        format_lazy("{} {}", repair, _("Then send the email again.")),
        format_lazy("{} {}", repair, _("It is then sent by itself.")),
    )


_SUPPRESSED_BY_TRUNCUS = Explanation(
    _("suppressed by Truncus"),
    _("Truncus did not send it: the recipient bounced or complained before."),
    _(
        "Ask for another address. If this one is right and the recipient wants your emails, "
        "remove it from the suppression list in the Truncus dashboard, then send the email again."
    ),
)
_KEY_REFUSED = _repairable(
    _("API key refused"),
    _("Truncus did not accept it: the API key of this site is missing or not valid."),
    _("Ask a developer to set a valid API key."),
)
_DOMAIN_NOT_VERIFIED = _repairable(
    _("sender's domain not verified"),
    _("Truncus did not send it: the domain of the sender is not verified."),
    _("Ask a developer to verify the domain in Truncus."),
)
_REQUEST_REFUSED = Explanation(
    _("request refused"),
    _("Truncus did not accept it: something in the email is not as it has to be."),
    _("Show this page to a developer."),
)

EXPLANATIONS: Mapping[str, Explanation] = {
    # Bounces
    "mailbox_full": Explanation(
        _("mailbox full"),
        _("The recipient's mailbox is full."),
        _(
            "Send it again in a few days. The address is right; if it is urgent, reach the "
            "recipient in another way."
        ),
    ),
    "mailbox_does_not_exist": Explanation(
        _("no such mailbox"),
        _("The recipient's server has no mailbox of that name."),
        _(
            "Look for a typing mistake in the address, or ask for another address. Do not send to "
            "this one again: that harms the reputation of your domain."
        ),
    ),
    "no_mx_record": Explanation(
        _("no mail server"),
        _("The recipient's domain has no server that takes email."),
        _("Look for a typing mistake in what follows the @, or ask for another address."),
    ),
    "connection_timeout": Explanation(
        _("mail server not reached"),
        _("The recipient's server could not be reached, for as long as Truncus tried."),
        _("Send it again later. If that fails for days, ask for another address."),
    ),
    # Complaints
    "abuse": Explanation(
        _("reported as spam"),
        _("The recipient reported it as spam."),
        _("Do not write to this address again unless the recipient asks for it."),
    ),
    "fraud": Explanation(
        _("reported as fraud"),
        _("It was reported as fraud or phishing."),
        _(
            "Do not write to this address again unless the recipient asks for it. Ask a developer "
            "whether somebody else sends emails in your name."
        ),
    ),
    "virus": Explanation(
        _("virus found"),
        _("The recipient's provider reported a virus in it."),
        _("Do not send it again before a developer has looked at its attachments and links."),
    ),
    "not-spam": Explanation(
        _("reported as not spam"),
        _("The recipient's provider took it for spam, and the recipient said that it is none."),
        _("Nothing: the recipient wants it."),
    ),
    "auth-failure": Explanation(
        _("sender not authenticated"),
        _("The recipient's provider could not verify that it comes from your domain."),
        _("Ask a developer to check the DNS records of the sender's domain: SPF, DKIM, DMARC."),
    ),
    "other": Explanation(
        _("complaint without a reason"),
        _("The recipient complained about it; the provider did not say why."),
        _("Do not write to this address again unless the recipient asks for it."),
    ),
    # Refused for its recipients, by Truncus or by this site
    "suppression_list": _SUPPRESSED_BY_TRUNCUS,
    "all_recipients_suppressed": _SUPPRESSED_BY_TRUNCUS,
    "recipient_suppressed": Explanation(
        _("suppressed by this site"),
        _("This site did not send it: a recipient is among its suppressed addresses."),
        _(
            "Ask for another address. If this one is right and the recipient wants your emails, "
            "remove it from the suppressed addresses in this admin, then send the email again."
        ),
    ),
    "suppression_unknown": Explanation(
        _("suppressed addresses not read"),
        _(
            "This site did not send it: the database did not tell whether the recipient has "
            "unsubscribed."
        ),
        _("Send it again later."),
        _BY_ITSELF,
    ),
    "recipient_not_allowed": Explanation(
        _("stopped by the staging guard"),
        _("This site did not send it: its staging guard does not allow a recipient."),
        _("Nothing, if this is a test site. If it is not, ask a developer to turn it off."),
    ),
    "invalid_address": Explanation(
        _("invalid address"),
        _("Truncus did not send it: the address of a recipient is not valid."),
        _(
            "Correct the address where your site stores it, and let the site write a new email. "
            "“Resend” would use the wrong address again."
        ),
    ),
    # Refused for its sender
    "domain_not_verified": _DOMAIN_NOT_VERIFIED,
    "domain_not_found": _repairable(
        _("sender's domain not found"),
        _("Truncus did not send it: it does not know the domain of the sender."),
        _("Ask a developer to add the domain in Truncus and to verify it."),
    ),
    "domain_paused": _repairable(
        _("sender's domain paused"),
        _(
            "Truncus did not send it: it has paused the domain of the sender for its bounces or "
            "complaints."
        ),
        _("Find the cause in the Truncus dashboard, and have the pause ended there."),
    ),
    "domain_type_mismatch": _repairable(
        _("sender's domain of another kind"),
        _("Truncus did not send it: the domain of the sender is not for transactional emails."),
        _("Ask a developer to use another domain."),
    ),
    # The account and the service
    "invalid_api_key": _KEY_REFUSED,
    "missing_api_key": _KEY_REFUSED,
    "api_key_revoked": _KEY_REFUSED,
    "scope_required": _repairable(
        _("API key not allowed"),
        _("Truncus did not accept it: the API key of this site may not send."),
        _("Ask a developer to give the API key the scope to send."),
    ),
    "configuration": _repairable(
        _("settings wrong"),
        _("This site could not send it: the settings of its mailer are wrong."),
        _("Show this page to a developer, who corrects the settings."),
    ),
    "monthly_limit_exceeded": _repairable(
        _("monthly quota used up"),
        _("Truncus did not accept it: the plan's emails of this month are used up."),
        _("Upgrade the plan, or wait for the next month."),
    ),
    "warmup_cap_exceeded": _repairable(
        _("daily cap used up"),
        _(
            "Truncus did not accept it: the domain of the sender is new, and its emails of today "
            "are used up."
        ),
        _("Wait until tomorrow."),
    ),
    "rate_limit_exceeded": Explanation(
        _("too many requests"),
        _("Truncus did not accept it: this site had made too many requests in a short time."),
        _("Send it again in some minutes."),
        _BY_ITSELF,
    ),
    "transient_failure": Explanation(
        _("failure of Truncus"),
        _("Truncus did not accept it: it had a failure of its own."),
        _("Send it again in some minutes."),
        _BY_ITSELF,
    ),
    "provider_error": Explanation(
        _("failure of the provider"),
        _("Truncus could not hand it to the provider that delivers it."),
        _("Send it again in some minutes."),
        _BY_ITSELF,
    ),
    "invalid_payload": _REQUEST_REFUSED,
    "invalid_request": _REQUEST_REFUSED,
    "missing_idempotency_key": _REQUEST_REFUSED,
    # The outbox
    "awaits_send_at": Explanation(
        _("waits for its time"),
        _("Truncus does not schedule it, so it waits here for its time."),
        _("Nothing: it is sent by itself at that time."),
    ),
    "unexpected_error": Explanation(
        _("error in the program"),
        _("This site could not send it: there was an error in its program."),
        _("Show this page to a developer."),
        _("It is tried again by itself. Show this page to a developer all the same."),
    ),
    "unreadable_payload": Explanation(
        _("stored email unreadable"),
        _("This site could not send it: what the outbox had stored of it cannot be read."),
        _(
            "Let the site write a new email. Ask a developer who or what has changed the table of "
            "the outbox."
        ),
    ),
}
"""Reason or code in small letters → what it means."""

_OF_STATES: Mapping[str, Explanation] = {
    State.UNKNOWN: Explanation(
        _("answer lost"),
        _("It is not known whether this email was sent: the answer from Truncus was lost."),
        _(
            "Look for the recipient in the Truncus dashboard. If the email is there, choose “Mark "
            "as sent”. If it is not, choose “Mark as not sent”; or “Mark as not sent and send it”, "
            "if it is still needed and its content is stored."
        ),
    ),
    State.BOUNCED: Explanation(
        _("bounced"),
        _("The recipient's server refused it."),
        _(
            "Look for a typing mistake in the address, or ask for another address. Sending to a "
            "wrong one again harms the reputation of your domain."
        ),
    ),
    State.COMPLAINED: Explanation(
        _("complained"),
        _("The recipient complained about it."),
        _("Do not write to this address again unless the recipient asks for it."),
    ),
    State.REJECTED: Explanation(
        _("refused"),
        _("It was refused, and not sent."),
        _("If this page does not say what to correct, show it to a developer."),
    ),
    State.FAILED: Explanation(
        _("not sent"),
        _("It was not sent."),
        _("If this page does not say what to correct, show it to a developer."),
    ),
    State.EXPIRED: Explanation(
        _("expired"),
        _("It expired before a worker could send it, so it was not sent."),
        _(
            "If it is still needed, let the site write a new email. If others have expired, too, "
            "ask a developer whether a worker of the outbox runs."
        ),
    ),
}
_HANDED_OVER = Explanation(
    _("outcome lost"),
    _(
        "It is not known whether this email was sent: it was handed to the fallback mailer, and "
        "what came of that was lost."
    ),
    _(
        "Look for it in the logs of that mailer. If it was sent, choose “Mark as sent”. If it was "
        "not, choose “Mark as not sent and send it”, or “Mark as not sent” if it is no longer "
        "needed."
    ),
)
_STILL_TRIED = Explanation(
    _("not sent yet"),
    _("The last attempt to send it failed."),
    _("Nothing: it is tried again by itself. If that lasts, show this page to a developer."),
)
_RATE_LIMIT = "rate_limit_"


def _known(reason: str) -> Explanation | None:
    """Return the explanation of a reason or code, if there is one."""
    key = reason.lower()
    # Each of Truncus's limits has a code of its own.
    return EXPLANATIONS.get("rate_limit_exceeded" if key.startswith(_RATE_LIMIT) else key)


def reason_label(reason: str) -> str:
    """Return a reason as lists show it; a word that is not known here without underscores."""
    known = _known(reason)
    if known:
        return str(known.name)
    return reason if " " in reason else reason.replace("_", " ")


def short_reason(email: Email) -> str:
    """Return why an email is in its state, as lists show it; empty if nothing tells.

    Empty while it waits in the outbox, too: pages show the error of its last request elsewhere.
    """
    if email.state in OUTBOX_STATES:
        return ""
    known = _known(email.error_code) or _known(email.reason)
    return str(known.name) if known else reason_label(email.error_code or email.reason)


def explanation_of(email: Email) -> Explanation | None:
    """Return why an email did not arrive or still waits; ``None`` where nothing went wrong.

    Its ``advice`` is the one for the state that the email is in.
    """
    if email.state == State.UNKNOWN:
        return _HANDED_OVER if email.sent_by else _OF_STATES[State.UNKNOWN]
    if email.state == State.EXPIRED:  # whatever it had met before
        return _OF_STATES[State.EXPIRED]
    known = _known(email.error_code) or _known(email.reason)
    if email.state in OUTBOX_STATES:
        if not (email.error or email.error_code):
            return None
        found = known or _STILL_TRIED
        return found._replace(advice=found.while_waiting or found.advice)
    of_state = _OF_STATES.get(email.state)
    return of_state and (known or of_state)
