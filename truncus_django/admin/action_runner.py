"""Running an action on emails: the question, the action, and its results."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html, strip_tags
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from truncus_django.admin.outbox_panel import outbox_entries
from truncus_django.admin.pages import page_basics
from truncus_django.admin.paginator import COUNT_LIMIT
from truncus_django.api.errors import TruncusError
from truncus_django.models import Email, OutboxEntry
from truncus_django.outbox.operations import OperationResult

MOST_REQUESTS = 50
"""How many emails at once, if each takes a request to Truncus. ``truncus_sync`` is for more."""
MOST_ROWS = 10_000
"""How many emails at once, if only the database is written."""
_MOST_MESSAGES = 10
_MOST_SHOWN = 10


@dataclass(frozen=True)
class Result:
    """The result of an action on one email.

    Attributes:
        text: a sentence for the user, perhaps lazily translated. If the action succeeded, it is
            also written into the history of the email.
        level: one of Django's message levels.
    """

    text: Any
    level: int = messages.SUCCESS


@dataclass(frozen=True)
class Question:
    """What the page with the question contains in addition to the question.

    Attributes:
        warnings: one or more sentences each.
        hidden: names and values of hidden fields of its form.
        choices: what the user chooses one of, as ``choice``.
    """

    warnings: Sequence[str] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    choices: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True)
class Action:
    """Something that a user can do with emails.

    Attributes:
        name: identifies it in forms.
        permission: the codename of the permission that it needs.
        button: the text of its button on an email's page.
        label: its text in the menu of the list.
        question: what the user confirms.
        limit: how many emails it takes at once; ``None`` for any number.
        has_button: whether the page of an email shows its button. The entry is that of the email
            in the outbox, with its batch; ``None`` if its payload is not stored.
        why_not: why its button is disabled, and why :meth:`ActionRun.one_by_one` leaves an email
            unchanged; the empty string if it is possible.
        run: does it, once the user has confirmed. Returns a response, or ``None`` to go back.
        ask: returns what the page with the question contains in addition.
    """

    name: str
    permission: str
    button: Any
    label: Any
    question: Any
    limit: int | None
    has_button: Callable[[Email, OutboxEntry | None], bool]
    why_not: Callable[[Email, OutboxEntry | None], str]
    run: Callable[["ActionRun", QuerySet[Email]], HttpResponseBase | None]
    ask: Callable[[Sequence[Email]], Question] = lambda emails: Question()

    def is_allowed(self, request: HttpRequest) -> bool:
        """Return whether the user has the permission."""
        return request.user.has_perm(f"truncus_django.{self.permission}")

    def as_admin_action(self) -> Callable[..., HttpResponseBase | None]:
        """Return a function for :attr:`django.contrib.admin.ModelAdmin.actions`."""

        @admin.action(description=self.label)
        def ask_then_run(
            model_admin: "admin.ModelAdmin[Email]", request: HttpRequest, queryset: QuerySet[Email]
        ) -> HttpResponseBase | None:
            return ActionRun(self, model_admin, request).response(queryset)

        ask_then_run.__name__ = self.name  # by which Django knows the action
        return ask_then_run


@dataclass(frozen=True)
class ActionRun:
    """An action that a user has chosen and perhaps confirmed."""

    action: Action
    model_admin: "admin.ModelAdmin[Email]"
    request: HttpRequest

    def response(self, queryset: QuerySet[Email]) -> HttpResponseBase | None:
        """Show the question; if the user has confirmed, run the action."""
        limit = self.action.limit
        if limit is not None and queryset.order_by()[: limit + 1].count() > limit:
            self.refuse(limit)
            return None
        if "confirmed" not in self.request.POST:
            return self._question(queryset)
        return self.action.run(self, queryset) or HttpResponseRedirect(self._back_url())

    def one_by_one(self, emails: Sequence[Email], do: Callable[[Email], Result]) -> None:
        """Do something that takes a request to Truncus to each of the emails.

        After an error that the next email would meet as well, the others are left unchanged.
        """
        entries = outbox_entries(emails)
        results: list[tuple[Email, Result]] = []
        for place, email in enumerate(emails):
            try:
                why_not = self.action.why_not(email, entries.get(email.pk))
                result = Result(why_not, messages.WARNING) if why_not else do(email)
            except Email.DoesNotExist:
                result = Result(_("Was deleted in the meantime."), messages.WARNING)
            except TruncusError as error:
                result = Result(str(error), messages.ERROR)
                if error.is_account_wide or error.is_service_failure:
                    left = Result(_("Left unchanged."), messages.WARNING)
                    results += [(email, result), *((other, left) for other in emails[place + 1 :])]
                    break
            results.append((email, result))
            self._write_history([email], result)  # at once: the next request may take long
        self._show(_grouped(results))

    def in_database(
        self,
        emails: QuerySet[Email],
        operation: Callable[[Iterable[UUID]], Mapping[UUID, OperationResult]],
    ) -> None:
        """Do something to all of the emails at once, in the database alone."""
        chosen = list(emails.only("id", "state", "message_id", "subject"))
        done = operation([email.pk for email in chosen])
        groups = _grouped([(email, RESULTS[done[email.pk]]) for email in chosen])
        for result, changed in groups.items():
            self._write_history(changed, result)
        self._show(groups)

    def tell(self, emails: Sequence[Email], result: Result) -> None:
        """Write what was done to emails into their history, and show it."""
        self._write_history(emails, result)
        self.model_admin.message_user(self.request, result.text, result.level)

    def refuse(self, limit: int) -> None:
        """Tell the user that these are too many emails."""
        text = ngettext(
            "Choose %(count)d email at a time.", "Choose at most %(count)d emails at once.", limit
        ) % {"count": limit}
        self.model_admin.message_user(self.request, text, messages.ERROR)

    def url_of(self, email_id: UUID | str) -> str:
        """Return the URL of an email's page."""
        name = f"{self.model_admin.admin_site.name}:truncus_django_email_change"
        return reverse(name, args=[email_id])

    def _question(self, queryset: QuerySet[Email]) -> HttpResponseBase:
        emails = list(queryset[: MOST_REQUESTS + 1])
        if len(emails) <= MOST_REQUESTS:
            # What the user confirms is what the page shows.
            count, ids, is_everything = len(emails), [str(email.pk) for email in emails], False
        else:
            count = queryset.order_by()[: COUNT_LIMIT + 1].count()
            ids = self.request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
            is_everything = self.request.POST.get("select_across") == "1"
        shown = emails[:_MOST_SHOWN]
        context = {
            **page_basics(self.model_admin, self.request),
            "title": self.action.button,
            "action": self.action,
            "asked": self.action.ask(emails),
            "emails": shown,
            "more_count": count - len(shown),
            "is_over_limit": count > COUNT_LIMIT,
            "count_limit": COUNT_LIMIT,
            "ids": ids[:1] if is_everything else ids,
            "is_everything": is_everything,
            "checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "from_page": self.request.POST.get("from_page", ""),
            "back_url": self._back_url(),
        }
        template = "admin/truncus_django/email/confirm.html"
        return TemplateResponse(self.request, template, context)

    def _back_url(self) -> str:
        if self.request.POST.get("from_page"):
            return self.url_of(self.request.POST[helpers.ACTION_CHECKBOX_NAME])
        return self.request.get_full_path()

    def _write_history(self, emails: Sequence[Email], result: Result) -> None:
        if result.level == messages.SUCCESS:
            LogEntry.objects.log_actions(
                user_id=self.request.user.pk,  # type: ignore[arg-type]  # has a permission
                queryset=emails,
                action_flag=CHANGE,
                change_message=strip_tags(result.text),
            )

    def _show(self, groups: Mapping[Result, Sequence[Email]]) -> None:
        """Show one message for each different result."""
        for result, emails in list(groups.items())[:_MOST_MESSAGES]:
            message = format_html("<b>{}</b>: {}", _names(emails), result.text)
            self.model_admin.message_user(self.request, message, result.level)
        rest = list(groups.items())[_MOST_MESSAGES:]
        if not rest:
            return
        count = sum(len(emails) for result, emails in rest)
        failed = sum(len(emails) for result, emails in rest if result.level >= messages.WARNING)
        text = _("And %(count)d more, %(failed)d of them with problems.") % {
            "count": count,
            "failed": failed,
        }
        level = messages.WARNING if failed else messages.SUCCESS
        self.model_admin.message_user(self.request, text, level)


def _grouped(results: Iterable[tuple[Email, Result]]) -> dict[Result, list[Email]]:
    groups: dict[Result, list[Email]] = {}
    for email, result in results:
        groups.setdefault(result, []).append(email)
    return groups


def _names(emails: Sequence[Email]) -> str:
    if len(emails) == 1:
        return emails[0].subject or str(emails[0].message_id or emails[0].pk)
    return ngettext("%(count)d email", "%(count)d emails", len(emails)) % {"count": len(emails)}


RESULTS: Mapping[OperationResult, Result] = {
    OperationResult.WAITS_AGAIN: Result(gettext_lazy("Waiting to be sent again.")),
    OperationResult.DUE_NOW: Result(gettext_lazy("Will be tried again now.")),
    OperationResult.CANCELLED: Result(gettext_lazy("Cancelled.")),
    OperationResult.SENT: Result(gettext_lazy("Marked as sent.")),
    OperationResult.NOT_SENT: Result(gettext_lazy("Marked as not sent.")),
    OperationResult.WAITS_ALREADY: Result(
        gettext_lazy("Already waiting to be sent."), messages.INFO
    ),
    OperationResult.BEING_SENT: Result(
        gettext_lazy("Is being sent at this moment."), messages.WARNING
    ),
    OperationResult.AMBIGUOUS: Result(
        gettext_lazy("May have been sent: the answer was lost. The request will be repeated."),
        messages.WARNING,
    ),
    OperationResult.NEEDS_DECISION: Result(
        gettext_lazy("May have been sent. Mark it as sent or as not sent first."),
        messages.WARNING,
    ),
    OperationResult.NOT_STORED: Result(
        gettext_lazy("The content is not stored, or no longer."), messages.WARNING
    ),
    OperationResult.DOES_NOT_APPLY: Result(
        gettext_lazy("Not possible in this state."), messages.WARNING
    ),
    OperationResult.GONE: Result(gettext_lazy("No longer in the log."), messages.ERROR),
}
"""What the user reads about an operation on the outbox."""
