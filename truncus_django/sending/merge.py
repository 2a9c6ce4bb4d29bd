"""A message with merge data → one message for each address in its ``to``.

The options have Anymail's names and meaning: set, even to an empty dict, each of ``merge_data``,
``merge_metadata`` and ``merge_headers`` makes one email for each recipient, and none sees another.
"""

import copy
import hashlib
from collections.abc import Iterable, Mapping
from email.message import Message
from typing import Any

from django.core.mail import EmailMessage
from django.utils.functional import Promise
from django.views.decorators.debug import sensitive_variables

from truncus_django.api.errors import MessageError
from truncus_django.api.keys import MAX_KEY_LENGTH
from truncus_django.message import MERGE_NAMES, options_of
from truncus_django.sending.addresses import mailbox
from truncus_django.sending.ambiguous import without_notes
from truncus_django.sending.merge_texts import MergeTexts
from truncus_django.unsubscribe import PLACEHOLDER

_OF_EACH_RECIPIENT = frozenset({"to", "cc", "bcc", "variables"})
_MERGED_NAMES = frozenset({*MERGE_NAMES, "merge_global_data", "variables"})
"""Options that a message to one recipient has no more, or in another form."""


class Merge:
    """What the recipients of a message with merge data have in common, and what is their own.

    Args:
        message: one with merge data.

    Raises:
        MessageError: its merge data is of a wrong type or names somebody who is not in ``to``, or
            its texts are no templates.
    """

    def __init__(self, message: EmailMessage) -> None:
        self.message = message
        self._options = options_of(message)
        self._names = _MERGED_NAMES & self._options.keys()
        self.recipients = _recipients(message)
        self._data = self._by_recipient("merge_data")
        self._metadata = self._by_recipient("merge_metadata")
        self._headers = self._by_recipient("merge_headers")
        merge_cc = self._options.get("merge_cc")
        if merge_cc is not None and not isinstance(merge_cc, bool):
            raise MessageError("merge_cc must be True, False or None.")
        if (message.cc or message.bcc) and not merge_cc:
            raise MessageError(
                "With merge data, cc and bcc would get a copy of each recipient's email. Set "
                "merge_cc=True if you want that."
            )
        self._global_data = _global_data(self._options)
        if not isinstance(self._options.get("metadata") or {}, Mapping):
            raise MessageError("metadata must be a dict.")
        extra = self._options.get("esp_extra") or {}
        if not isinstance(extra, Mapping):
            raise MessageError("esp_extra must be a dict of the API's fields.")
        self._has_template = "template_id" in {**extra, **self._options}
        overruled = _OF_EACH_RECIPIENT & extra.keys()
        if overruled:
            raise MessageError(
                f"esp_extra sets {min(overruled)!r}, which each recipient of a message with merge "
                "data has for themselves."
            )
        has_data = bool(self._global_data or any(self._data.values()))
        has_link = "unsubscribe" in self._options
        is_filled = (
            has_data or "merge_data" in self._options or (has_link and _mentions_link(message))
        )
        if has_link:
            self._global_data = {"unsubscribe_url": PLACEHOLDER, **self._global_data}
        self._texts = MergeTexts(message) if is_filled and not self._has_template else None
        if self._texts is not None and has_data and not self._texts.have_variables:
            raise MessageError(
                "The message has merge data, and neither a template_id nor a {{ variable }} in its "
                "subject or bodies: the data would change nothing."
            )

    def message_for(self, recipient: str) -> EmailMessage:
        """Return a message like the common one to one recipient, without what is their own."""
        message = without_notes(copy.copy(self.message))
        message.to = [self.recipients[recipient]]
        for name in self._names:
            setattr(message, name, None)
        return message

    @sensitive_variables()
    def fill_in(self, message: EmailMessage, recipient: str) -> None:
        """Give what :meth:`message_for` returned all that is the recipient's own.

        It shares no list or dict with the others then, which a receiver of ``pre_send`` may change.

        Raises:
            MessageError: it lacks a variable.
        """
        message.cc, message.bcc = list(message.cc or ()), list(message.bcc or ())
        message.reply_to = list(message.reply_to or ())
        message.attachments = [
            copy.deepcopy(item) if isinstance(item, Message | list) else item
            for item in message.attachments or ()
        ]
        if hasattr(message, "alternatives"):
            message.alternatives = [tuple(each) for each in message.alternatives or ()]
        message.extra_headers = _with_headers(
            message.extra_headers or {}, self._headers.get(recipient, {})
        )
        own: dict[str, Any] = {}
        if "metadata" in self._options or recipient in self._metadata:
            metadata = self._options.get("metadata") or {}
            own["metadata"] = {**metadata, **self._metadata.get(recipient, {})}
        if self._has_template:
            own["variables"] = self._values(recipient)
        if "esp_extra" in self._options:
            own["esp_extra"] = copy.deepcopy(self._options["esp_extra"])
        key = self._options.get("idempotency_key")
        if key and isinstance(key, str | int) and not isinstance(key, bool):  # else it is refused
            own["idempotency_key"] = _key_of(key, recipient)
        for name, value in own.items():
            setattr(message, name, value)
        if self._texts is not None:
            self._texts.fill_in(message, self._values(recipient))

    def filled(self, recipient: str) -> EmailMessage:
        """Return the message to one recipient with all that is their own.

        Raises:
            MessageError: it lacks a variable.
        """
        message = self.message_for(recipient)
        self.fill_in(message, recipient)
        return message

    def _values(self, recipient: str) -> dict[str, Any]:
        return {**self._global_data, **self._data.get(recipient, {})}

    def _by_recipient(self, name: str) -> dict[str, Mapping[str, Any]]:
        """Return one of the merge options by recipient, as :attr:`recipients` names them."""
        given = self._options.get(name)
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            raise MessageError(f"{name} must be a dict of addresses to dicts.")
        found: dict[str, Mapping[str, Any]] = {}
        for index, (key, values) in enumerate(given.items()):
            # Most keys are as in 'to': the others are worth a parser's time.
            recipient = key if key in self.recipients else mailbox(key, name, index)
            if recipient not in self.recipients:
                raise MessageError(
                    f"{name} has an address that is not in 'to', its number {index + 1}."
                )
            if recipient in found:
                raise MessageError(f"{name} has an address twice, the second as {index + 1}.")
            if not isinstance(values, Mapping):
                raise MessageError(
                    f"{name} must map each address to a dict; number {index + 1} is a "
                    f"{type(values).__name__}."
                )
            found[recipient] = values
        return found


def _recipients(message: EmailMessage) -> dict[str, Any]:
    """Return the addresses in ``to`` by recipient; who is there twice gets one email."""
    given = message.to
    if isinstance(given, str | Promise) or not isinstance(given, Iterable):
        raise MessageError("'to' must be a list or tuple of addresses.")
    found: dict[str, Any] = {}
    for index, item in enumerate(given):
        if item:
            found.setdefault(mailbox(item, "to", index), item)
    return found


def _mentions_link(message: EmailMessage) -> bool:
    bodies = [message.body, *(each[0] for each in getattr(message, "alternatives", None) or ())]
    return any("unsubscribe_url" in str(body) for body in bodies)


def _global_data(options: Mapping[str, Any]) -> Mapping[str, Any]:
    variables, merged = options.get("variables"), options.get("merge_global_data")
    if variables and merged:
        raise MessageError("variables and merge_global_data are two names of one thing; set one.")
    chosen = variables or merged or {}
    if not isinstance(chosen, Mapping):
        name = "variables" if variables else "merge_global_data"
        raise MessageError(f"{name} must be a dict.")
    return chosen


def _with_headers(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    replaced = {str(name).lower() for name in own}
    kept = {name: value for name, value in common.items() if str(name).lower() not in replaced}
    return {**kept, **own}


def _key_of(key: Any, recipient: str) -> str:
    """Return the idempotency key of one recipient's email, made of the message's own."""
    whole = f"{key}:{hashlib.sha256(recipient.encode()).hexdigest()[:32]}"
    if len(whole) > MAX_KEY_LENGTH:
        return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
    return whole
