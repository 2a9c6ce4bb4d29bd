"""One email at Truncus: what became of it, and cancelling it while it is scheduled."""

from truncus_django.accounts import get_account
from truncus_django.api.client import TruncusClient
from truncus_django.api.errors import Conflict
from truncus_django.log.ingest import apply_details
from truncus_django.log.transitions import EmailUpdate, advance_emails
from truncus_django.models import Email
from truncus_django.states import State


def ask_about(email: Email) -> None:
    """Ask Truncus about an email that has its id, and write what it answers.

    Raises:
        TruncusError: it gave no answer, or the account of the email is not known.
    """
    message_id = str(email.message_id)
    details = _client_of(email).get_email(message_id)
    apply_details({message_id: details})
    email.refresh_from_db()


def cancel_scheduled(email: Email) -> bool:
    """Cancel an email that Truncus holds; return whether it could, and write what is so now.

    Raises:
        TruncusError: as :func:`ask_about`.
    """
    try:
        _client_of(email).cancel(str(email.message_id))
    except Conflict:  # it has gone out
        ask_about(email)
        return False
    advance_emails([EmailUpdate(email.pk, State.CANCELLED)], ["state", "reason"])
    email.refresh_from_db()
    return True


def _client_of(email: Email) -> TruncusClient:
    return get_account(email.mailer, email.tenant_id).client
