"""Running an action on emails: the question, the action, and its results."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import PAGE_VAR
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html, strip_tags
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from truncus_django.admin import display
from truncus_django.admin.outbox_panel import outbox_entries
from truncus_django.admin.pages import page_basics
from truncus_django.admin.paginator import COUNT_LIMIT
from truncus_django.api.errors import TruncusError
from truncus_django.models import Email, OutboxEntry
from truncus_django.outbox.health import health
from truncus_django.outbox.operations import FindChanged, OperationResult

MAX_REQUESTS = 50
"""How many emails at once, if each takes a request to Truncus. ``truncus_sync`` is for more."""
MAX_ROWS = 10_000
"""How many emails at once, if only the database is written."""
_MAX_MESSAGES = 10
MEANT = "meant"
"""The field with what a question is about, in a form that is limited in its number of fields."""
_VERSION = ":"
"""Stands between an id and the version of what has it."""
_MAX_SHOWN = 20
_LONGEST_QUOTE = 100


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


class _Row(NamedTuple):
    """An email in the table of a question."""

    email: Email
    why_not: str = ""

    @property
    def subject(self) -> str:
        return display.subject(self.email)

    @property
    def recipients(self) -> SafeString:
        return display.recipients(self.email)

    @property
    def state(self) -> SafeString:
        return display.state_label(self.email.state)

    @property
    def time(self) -> SafeString:
        return display.when(self.email)


def ids_in(text: str) -> list[UUID]:
    """Return the ids in a field of a form, and nothing of what is none."""
    found = []
    for word in text.split():
        with suppress(ValueError):
            found.append(UUID(word))
    return found


def meant_words(versions: Mapping[UUID, str]) -> str:
    """Return the value of :data:`MEANT`.

    Args:
        versions: by ids, what tells whether something is still as the question shows it; without
            spaces.
    """
    return " ".join(f"{each.hex}{_VERSION}{version}" for each, version in versions.items())


def meant_in(request: HttpRequest, *, limit: int) -> dict[UUID, str]:
    """Return what :data:`MEANT` says, and nothing of what is no id; one more than ``limit``."""
    words = request.POST.get(MEANT, "").split()[: limit + 1]
    pairs = (word.partition(_VERSION)[::2] for word in words)
    return {found: version for text, version in pairs for found in ids_in(text)}


def form_url(request: HttpRequest) -> str:
    """Return the URL of a list for the form of a question, without the number of its page.

    The list may have fewer pages by then, and Django turns away what is sent to one that is gone.
    """
    query = request.GET.copy()
    query.pop(PAGE_VAR, None)
    return f"{request.path}?{query.urlencode()}"


def always_possible(email: Email, entry: OutboxEntry | None) -> str:
    """Return that nothing speaks against an action on an email."""
    return ""


Versions = Callable[[Sequence[Email], Mapping[UUID, OutboxEntry]], Mapping[UUID, str]]


@dataclass(frozen=True)
class Action:
    """Something that a user can do with emails.

    Attributes:
        name: identifies it in forms.
        permission: the codename of the permission that it needs.
        button: the text of its button on an email's page.
        label: its text in the menu of the list.
        question: what the user confirms, of ``count`` emails.
        confirm: the text of the button that confirms it.
        limit: how many emails it takes at once; ``None`` for any number.
        has_button: whether the page of an email shows its button. The entry is that of the email
            in the outbox, with its batch; ``None`` if its payload is not stored.
        why_not: why it cannot be done to an email; the empty string if it can. Its button is
            disabled then, the question leaves the email out, and :meth:`ActionRun.one_by_one`
            leaves it unchanged.
        run: does it, once the user has confirmed. Returns a response, or ``None`` to go back.
        versions: returns what of the emails the question goes by, as text without spaces. An email
            of which it has changed since the question is left unchanged: nobody was asked about
            it as it is now. ``None`` for what may be done to it all the same.
        why_too_many: why it cannot be done to so many emails; the empty string if it can.
        ask: returns what the page with the question contains in addition.
        looks_at_bodies: whether ``why_not`` or ``ask`` needs the bodies of the emails.
    """

    name: str
    permission: str
    button: Any
    label: Any
    question: Any
    confirm: Any
    limit: int | None
    has_button: Callable[[Email, OutboxEntry | None], bool]
    why_not: Callable[[Email, OutboxEntry | None], str]
    run: Callable[["ActionRun", QuerySet[Email]], HttpResponseBase | None]
    versions: Versions | None = None
    why_too_many: Callable[[QuerySet[Email]], str] = lambda emails: ""
    ask: Callable[[Sequence[Email], Mapping[UUID, OutboxEntry]], Question] = (
        lambda emails, entries: Question()
    )
    looks_at_bodies: bool = False

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
        """Show the question; if the user has confirmed, run the action.

        An action on any number of emails runs on those that Django's list has now. Others run on
        the emails that the question was about, and on no others: what the list shows may have
        changed since, and with it the states of the emails.
        """
        is_limited, meant = self.action.limit is not None, self._meant
        if meant or (is_limited and not self._is_everything):
            checked = " ".join(self.request.POST.getlist(helpers.ACTION_CHECKBOX_NAME))
            everything = self.model_admin.get_queryset(self.request)
            queryset = everything.filter(pk__in=meant or ids_in(checked))
        if why_too_many := self._over_limit(queryset) or self.action.why_too_many(queryset):
            self.model_admin.message_user(self.request, why_too_many, messages.ERROR)
            return None
        if "confirmed" not in self.request.POST or (is_limited and not meant):
            return self._question(queryset)
        if meant and (gone := len(meant) - queryset.order_by().count()):
            self._tell_that_are_gone(gone)
        return self.action.run(self, queryset) or HttpResponseRedirect(self._back_url())

    @cached_property
    def _meant(self) -> Mapping[UUID, str]:
        """What the question was about: ids of emails, and their versions then."""
        if self.action.limit is None:
            return {}
        return meant_in(self.request, limit=self.action.limit)

    @property
    def _is_everything(self) -> bool:
        """Whether the user chose all emails that the list shows, on all its pages."""
        return self.request.POST.get("select_across") == "1"

    def _over_limit(self, queryset: QuerySet[Email]) -> str:
        limit = self.action.limit
        if limit is None or queryset.order_by()[: limit + 1].count() <= limit:
            return ""
        return ngettext(
            "Choose %(count)d email at a time.", "Choose at most %(count)d emails at once.", limit
        ) % {"count": limit}

    def _tell_that_are_gone(self, count: int) -> None:
        """Tell the user about emails that were deleted since the question was asked."""
        text = ngettext(
            "%(count)d email is no longer in the log.",
            "%(count)d emails are no longer in the log.",
            count,
        )
        self.model_admin.message_user(self.request, text % {"count": count}, messages.WARNING)

    def one_by_one(self, emails: Sequence[Email], do: Callable[[Email], Result]) -> None:
        """Do something that takes a request to Truncus to each of the emails.

        After an error that the next email would meet as well, the others are left unchanged.
        """
        results: list[tuple[Email, Result]] = []
        for place, email in enumerate(emails):
            try:
                email.refresh_from_db()  # the requests before this one may have taken long
                entries = outbox_entries([email])
                if self.find_changed([email], entries):
                    result = RESULTS[OperationResult.CHANGED]
                elif why_not := self.action.why_not(email, entries.get(email.pk)):
                    result = Result(why_not, messages.WARNING)
                else:
                    result = do(email)
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
        operation: Callable[[Iterable[UUID], FindChanged], Mapping[UUID, OperationResult]],
    ) -> None:
        """Do something to all of the emails at once, in the database alone."""
        chosen = list(emails.only("id", "state", "message_id", "subject"))
        done = operation([email.pk for email in chosen], self.find_changed)
        groups = _grouped([(email, RESULTS[done[email.pk]]) for email in chosen])
        for result, of_these in groups.items():
            self._write_history(of_these, result)
        self._show(groups)
        if {OperationResult.WAITS_AGAIN, OperationResult.DUE_NOW} & set(done.values()):
            self.warn_if_unattended()

    def find_changed(
        self, emails: Sequence[Email], entries: Mapping[UUID, OutboxEntry]
    ) -> set[UUID]:
        """Return the ids of those emails that changed since the question."""
        if self.action.versions is None:
            return set()
        versions = self.action.versions(emails, entries)
        return {pk for pk, version in versions.items() if self._meant.get(pk) != version}

    def tell(self, emails: Sequence[Email], result: Result) -> None:
        """Write what was done to emails into their history, and show it."""
        self._write_history(emails, result)
        self.model_admin.message_user(self.request, result.text, result.level)

    def warn_if_unattended(self) -> None:
        """Tell the user if nothing leaves the outbox; the queries of ``health()``."""
        if health().is_unattended:
            text = _("No worker seems to run: nothing is sent from the outbox.")
            self.model_admin.message_user(self.request, text, messages.WARNING)

    def url_of(self, email_id: UUID | str) -> str:
        """Return the URL of an email's page."""
        name = f"{self.model_admin.admin_site.name}:truncus_django_email_change"
        return reverse(name, args=[email_id])

    def _question(self, queryset: QuerySet[Email]) -> HttpResponseBase:
        if not self.action.looks_at_bodies:
            queryset = queryset.defer("text_body", "html_body")
        is_limited = self.action.limit is not None
        chosen = list(queryset if is_limited else queryset[:_MAX_SHOWN])
        entries = outbox_entries(chosen)
        meant, left_out = self._divided(chosen, entries)
        count = len(meant) if is_limited else queryset.order_by()[: COUNT_LIMIT + 1].count()
        checked = self.request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
        words = {"count": count}
        context = {
            **page_basics(self.model_admin, self.request),
            "title": self.action.button,
            "action": self.action,
            "asked": self.action.ask(meant, entries),
            "question": self.action.question % words,
            "confirm": self.action.confirm % words,
            "can_be_done": bool(meant),
            "chosen_count": len(chosen),
            "meant_count": len(meant),
            "meant": [_Row(email) for email in meant[:_MAX_SHOWN]],
            "more_meant": count - _MAX_SHOWN,
            "left_out": [_Row(*each) for each in left_out[:_MAX_SHOWN]],
            "more_left_out": len(left_out) - _MAX_SHOWN,
            "is_over_limit": count > COUNT_LIMIT,
            "count_limit": COUNT_LIMIT,
            "meant_words": meant_field(self.action, meant, entries) if is_limited else "",
            "checkbox_name": helpers.ACTION_CHECKBOX_NAME,
            "checked": checked[:1] if is_limited else checked,  # Django wants one
            "is_everything": self._is_everything,
            "from_page": self.request.POST.get("from_page", ""),
            "form_url": form_url(self.request),
            "back_url": self._back_url(),
        }
        template = "admin/truncus_django/email/confirm.html"
        return TemplateResponse(self.request, template, context)

    def _divided(
        self, emails: Sequence[Email], entries: Mapping[UUID, OutboxEntry]
    ) -> tuple[list[Email], list[tuple[Email, str]]]:
        """Return those to which the action can be done, and the others with the reason."""
        reasons = [self.action.why_not(email, entries.get(email.pk)) for email in emails]
        pairs = list(zip(emails, reasons, strict=True))
        return [email for email, why in pairs if not why], [pair for pair in pairs if pair[1]]

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
        for result, emails in list(groups.items())[:_MAX_MESSAGES]:
            message = format_html("<b>{}</b>: {}", _names(emails), result.text)
            self.model_admin.message_user(self.request, message, result.level)
        rest = list(groups.items())[_MAX_MESSAGES:]
        if not rest:
            return
        count = sum(len(emails) for result, emails in rest)
        failed = sum(len(emails) for result, emails in rest if result.level >= messages.WARNING)
        text = ngettext(
            "And %(count)d more, %(failed)d with problems.",
            "And %(count)d more, %(failed)d of them with problems.",
            count,
        ) % {"count": count, "failed": failed}
        level = messages.WARNING if failed else messages.SUCCESS
        self.model_admin.message_user(self.request, text, level)


def meant_field(
    action: Action, emails: Sequence[Email], entries: Mapping[UUID, OutboxEntry]
) -> str:
    """Return the value of the field with the emails that a question is about."""
    versions = action.versions(emails, entries) if action.versions else {}
    return meant_words({each.pk: versions.get(each.pk, "") for each in emails})


def _grouped(results: Iterable[tuple[Email, Result]]) -> dict[Result, list[Email]]:
    groups: dict[Result, list[Email]] = {}
    for email, result in results:
        groups.setdefault(result, []).append(email)
    return groups


def shortened(subject: str) -> str:
    """Return a subject as sentences quote it."""
    return display.in_one_line(subject, _LONGEST_QUOTE)


def _names(emails: Sequence[Email]) -> str:
    if len(emails) == 1:
        return shortened(emails[0].subject) or str(emails[0].message_id or emails[0].pk)
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
    OperationResult.CHANGED: Result(
        gettext_lazy("It has changed since you were asked. Look at it, and choose again."),
        messages.WARNING,
    ),
    OperationResult.GONE: Result(gettext_lazy("No longer in the log."), messages.ERROR),
}
"""What the user reads about an operation on the outbox."""
