"""What was sent, what became of it, its events since, and who must not be mailed."""

from datetime import datetime
from typing import Any, ClassVar, Self, TypeVar

from django.db import connections, models, router
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from truncus_django.conf import ConfigurationError, get_settings
from truncus_django.db.fields import ExactCharField
from truncus_django.db.indexes import PartialIndex
from truncus_django.db.uuid7 import time_ordered_uuid
from truncus_django.states import FINAL_STATES, UNSENT_STATES, State

__all__ = ["Email", "EmailEvent", "SuppressedAddress"]

SENT_BY_LENGTH = 200
"""Before Django 6.1 the dotted path of a backend."""

_Row = TypeVar("_Row", bound=models.Model)


def database() -> str:
    """Return the alias of the database that holds the log, never that of a replica.

    Raises:
        ConfigurationError: there is no such database.
    """
    alias = get_settings().database or router.db_for_write(Email)
    if alias not in connections.settings:
        raise ConfigurationError("TRUNCUS['DATABASE'] is no alias of DATABASES.")
    return alias


class LogManager(models.Manager[_Row]):
    """Reads and writes the log's own database."""

    @property
    def db(self) -> str:
        """The alias of the log's own database."""
        return self._db or database()

    def get_queryset(self) -> models.QuerySet[_Row]:
        """Return all rows."""
        return super().get_queryset().using(self.db)


class EmailQuerySet(models.QuerySet["Email"]):
    """Emails, by what is to be done with them."""

    def due_for_sync(self, at: datetime | None = None) -> Self:
        """Return emails to ask Truncus about, now or ``at`` a moment, longest overdue first."""
        return self.filter(next_sync_at__lte=at or timezone.now()).order_by("next_sync_at")

    def finished(self) -> Self:
        """Return emails that may be forgotten: nothing is to be done with them any more."""
        return self.exclude(state__in=UNSENT_STATES)

    def forgettable(self) -> Self:
        """Return finished emails that are not part of a request of the outbox, either."""
        in_use = models.Q(is_waiting=True) | models.Q(batch__isnull=False)
        own = OutboxEntry.objects.using(self.db).filter(in_use, pk=models.OuterRef("pk"))
        return self.finished().exclude(models.Exists(own))


EmailManager = LogManager.from_queryset(EmailQuerySet)


class Email(models.Model):
    """One email: what was sent, its state, and who opened it.

    :mod:`truncus_django.log.transitions` changes ``state`` by rank. Bodies are kept only with
    ``STORE_BODIES``: they hold reset links.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=time_ordered_uuid, editable=False)
    message_id = ExactCharField(_("Truncus id"), max_length=255, null=True)
    global_message_id = ExactCharField(_("global id"), max_length=255, blank=True)
    provider_message_id = ExactCharField(_("provider's id"), max_length=255, blank=True)
    idempotency_key = ExactCharField(_("idempotency key"), max_length=255, blank=True)
    batch_index = models.PositiveSmallIntegerField(_("place in its batch"), null=True)
    mailer = ExactCharField(_("mailer"), max_length=100, blank=True)

    state = models.CharField(_("state"), max_length=12, choices=State.choices)
    reason = models.CharField(_("reason"), max_length=300, blank=True)
    error_code = models.CharField(_("error code"), max_length=100, blank=True)
    error = models.TextField(_("error"), blank=True)

    from_email = models.CharField(_("from"), max_length=500, blank=True)
    to: "models.JSONField[list[str], list[str]]" = models.JSONField(_("to"), default=list)
    cc: "models.JSONField[list[str], list[str]]" = models.JSONField(_("cc"), default=list)
    bcc: "models.JSONField[list[str], list[str]]" = models.JSONField(_("bcc"), default=list)
    redirected_to: "models.JSONField[list[str], list[str]]" = models.JSONField(
        _("redirected to"), default=list
    )
    """Who got it instead, by the guard of a staging site."""
    suppressed: "models.JSONField[list[str], list[str]]" = models.JSONField(
        _("suppressed"), default=list
    )
    """Those of the recipients who did not get it, because they are suppressed."""
    unsubscribe_list = ExactCharField(_("unsubscribe list"), max_length=100, blank=True)
    sent_by = ExactCharField(_("sent by"), max_length=SENT_BY_LENGTH, blank=True)
    """The fallback mailer that it was handed to; empty where Truncus alone was asked."""
    subject = models.CharField(_("subject"), max_length=998, blank=True)
    search_text = models.TextField(editable=False, blank=True)
    tenant_id = ExactCharField(_("tenant"), max_length=255, blank=True)
    template_id = models.CharField(_("template"), max_length=255, blank=True)
    metadata: "models.JSONField[dict[str, str], dict[str, str]]" = models.JSONField(
        _("metadata"), default=dict
    )
    is_sandbox = models.BooleanField(_("sandbox"), default=False)
    track_opens = models.BooleanField(_("opens tracked"), null=True)
    track_clicks = models.BooleanField(_("clicks tracked"), null=True)
    attachments: "models.JSONField[list[dict[str, Any]], list[dict[str, Any]]]" = models.JSONField(
        _("attachments"), default=list
    )
    attachment_count = models.PositiveSmallIntegerField(_("attachments"), default=0)
    attachment_bytes = models.PositiveBigIntegerField(_("size of attachments"), default=0)
    text_body = models.TextField(_("text"), null=True)  # noqa: DJ001  None: not stored
    html_body = models.TextField(_("HTML"), null=True)  # noqa: DJ001  None: not stored
    resend_of = models.ForeignKey(
        "self",
        verbose_name=_("resend of"),
        on_delete=models.SET_NULL,
        null=True,
        db_index=False,
        related_name="resends",
    )

    send_at = models.DateTimeField(_("to be sent at"), null=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    sent_at = models.DateTimeField(_("sent"), null=True)
    delivered_at = models.DateTimeField(_("delivered"), null=True)
    bounced_at = models.DateTimeField(_("bounced"), null=True)
    complained_at = models.DateTimeField(_("complained"), null=True)
    first_opened_at = models.DateTimeField(_("first opened"), null=True)
    last_opened_at = models.DateTimeField(_("last opened"), null=True)
    open_count = models.PositiveIntegerField(_("opens"), default=0)
    click_count = models.PositiveIntegerField(_("clicks"), default=0)
    attempts = models.PositiveSmallIntegerField(_("requests"), default=0)
    next_sync_at = models.DateTimeField(_("next sync"), null=True)
    answers_until = models.DateTimeField(_("last sync"), null=True)
    """How far Truncus's answers reach: when the latest of them was made, by Truncus's clock."""
    forgotten_at = models.DateTimeField(_("forgotten"), null=True, editable=False)
    """When one of its recipients, or its sender, was last forgotten."""
    forget_when_finished = models.TextField(editable=False, blank=True)
    """Who is to be forgotten as soon as nothing is to be done with it any more, one in a line."""

    objects = EmailManager()

    class Meta:
        verbose_name = _("email")
        verbose_name_plural = _("emails")
        ordering: ClassVar = ["-created_at"]
        indexes: ClassVar = [
            models.Index(fields=["-created_at"], name="truncus_email_created"),
            models.Index(fields=["state", "-created_at"], name="truncus_email_state"),
            models.Index(fields=["tenant_id", "-created_at"], name="truncus_email_tenant"),
            models.Index(fields=["mailer", "-created_at"], name="truncus_email_mailer"),
            models.Index(fields=["is_sandbox", "-created_at"], name="truncus_email_sandbox"),
            # Hardly any email is one. (One of sandbox emails alone would do SQLite no good, which
            # does not see that "= ?" means them.)
            PartialIndex(
                fields=["resend_of"],
                name="truncus_email_resend_of",
                where=models.Q(resend_of__isnull=False),
            ),
            models.Index(fields=["next_sync_at"], name="truncus_email_next_sync"),
            # Named here and not at their fields, which would have PostgreSQL keep a second index
            # of each for searches with LIKE.
            models.Index(fields=["global_message_id"], name="truncus_email_global_id"),
            models.Index(fields=["provider_message_id"], name="truncus_email_provider_id"),
            models.Index(fields=["idempotency_key"], name="truncus_email_key"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["message_id"], name="truncus_email_message_id")
        ]
        permissions: ClassVar = [
            ("resend_email", _("Can send an email again")),
            ("cancel_email", _("Can cancel an email that has yet to go out")),
            ("sync_email", _("Can ask Truncus about an email")),
            ("export_email", _("Can export emails")),
            ("retry_email", _("Can try again what the outbox has not sent")),
            ("decide_email", _("Can decide whether an unknown email was sent")),
            ("forget_email", _("Can forget a recipient, in all emails")),
        ]

    def __str__(self) -> str:
        return f"{self.get_state_display()}: {self.message_id or self.id}"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow its state."""
        return self.state in FINAL_STATES

    @property
    def recipients(self) -> list[str]:
        """All that it was addressed to, in the order ``to``, ``cc``, ``bcc``."""
        return [*self.to, *self.cc, *self.bcc]


class EmailEvent(models.Model):
    """Something that happened to an email, reported by a webhook or by an answer.

    ``email`` is empty as long as the email is not recorded: an event can come before the answer
    to the send.
    """

    class Source(models.TextChoices):
        """What reported it."""

        WEBHOOK = "webhook", _("webhook")
        SYNC = "sync", _("sync")

    id = models.UUIDField(_("id"), primary_key=True, default=time_ordered_uuid, editable=False)
    email = models.ForeignKey(
        Email, verbose_name=_("email"), on_delete=models.CASCADE, null=True, related_name="events"
    )
    message_id = ExactCharField(_("Truncus id"), max_length=255)
    event_id = ExactCharField(_("event id"), max_length=255)
    type = models.CharField(_("type"), max_length=60)
    reason = models.CharField(_("reason"), max_length=300, blank=True)
    recipient = models.CharField(_("recipient"), max_length=500, blank=True)
    occurred_at = models.DateTimeField(_("time"))
    received_at = models.DateTimeField(_("received"), default=timezone.now)
    source = models.CharField(_("source"), max_length=10, choices=Source.choices)
    payload: "models.JSONField[dict[str, Any], dict[str, Any]]" = models.JSONField(
        _("payload"), default=dict
    )

    objects: ClassVar[models.Manager["EmailEvent"]] = LogManager()

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        ordering: ClassVar = ["occurred_at", "id"]
        indexes: ClassVar = [models.Index(fields=["message_id"], name="truncus_event_message_id")]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["event_id"], name="truncus_event_event_id")
        ]

    def __str__(self) -> str:
        return f"{self.type}: {self.message_id}"


class SuppressedAddressQuerySet(models.QuerySet["SuppressedAddress"]):
    """Entries, by whether they hold."""

    def in_force(self) -> Self:
        """Return those that hold now."""
        return self.filter(models.Q(expires_at=None) | models.Q(expires_at__gt=timezone.now()))


SuppressedAddressManager = LogManager.from_queryset(SuppressedAddressQuerySet)


class SuppressedAddress(models.Model):
    """An address that must not be mailed: at all, or by one unsubscribe list.

    ``tenant_id`` and ``list_name`` are empty where it holds for all of them. After ``expires_at``
    it does not hold any more.
    """

    class Reason(models.TextChoices):
        """Why."""

        HARD_BOUNCE = "hard_bounce", _("hard bounce")
        COMPLAINT = "complaint", _("complaint")
        BLOCKED = "blocked", _("blocked by Truncus")
        UNSUBSCRIBED = "unsubscribed", _("unsubscribed")
        BY_HAND = "by_hand", _("by hand")

    class Source(models.TextChoices):
        """Where that is known from."""

        WEBHOOK = "webhook", _("webhook")
        SYNC = "sync", _("sync")
        ANSWER = "answer", _("answer to a send")
        LINK = "link", _("unsubscribe link")
        ADMIN = "admin", _("admin")
        IMPORT = "import", _("import")
        CODE = "code", _("the project's code")

    id = models.UUIDField(_("id"), primary_key=True, default=time_ordered_uuid, editable=False)
    address = ExactCharField(_("address"), max_length=254)
    """Without a name, in small letters, its domain in ASCII; a digest of somebody forgotten."""
    tenant_id = ExactCharField(_("tenant"), max_length=255, blank=True)
    list_name = ExactCharField(_("list"), max_length=100, blank=True)
    reason = models.CharField(
        _("reason"), max_length=12, choices=Reason.choices, default=Reason.BY_HAND
    )
    source = models.CharField(
        _("source"), max_length=10, choices=Source.choices, default=Source.CODE
    )
    note = models.CharField(_("note"), max_length=300, blank=True)
    email = models.ForeignKey(
        Email,
        verbose_name=_("email"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
    )
    """The one that bounced, or was complained about."""
    created_at = models.DateTimeField(_("since"), default=timezone.now)
    expires_at = models.DateTimeField(_("until"), null=True, blank=True)

    objects = SuppressedAddressManager()

    class Meta:
        verbose_name = _("suppressed address")
        verbose_name_plural = _("suppressed addresses")
        ordering: ClassVar = ["-created_at"]
        indexes: ClassVar = [models.Index(fields=["-created_at"], name="truncus_suppr_created")]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["address", "tenant_id", "list_name"], name="truncus_suppr_address"
            )
        ]
        permissions: ClassVar = [("export_suppressedaddress", _("Can export suppressed addresses"))]

    def __str__(self) -> str:
        return f"{self.get_reason_display()}: {self.id}"

    @property
    def is_in_force(self) -> bool:
        """Whether it holds now."""
        return self.expires_at is None or self.expires_at > timezone.now()


# The outbox ---------------------------------------------------------------------------------------


class Priority(models.IntegerChoices):
    """Which emails of a mailer go first."""

    HIGH = 1, _("high")
    NORMAL = 5, _("normal")
    LOW = 9, _("low")


class OutboxAccount(models.Model):
    """What all workers share about one Truncus account: its pace, its pauses, its capabilities.

    Locking its row lets one worker at a time choose what is sent next, and count the request.
    """

    account = ExactCharField(primary_key=True, max_length=100)
    """A digest of base URL and API key; ``"mailer:"`` or ``"tenant:"`` with a digest of its name
    where a mailer or a tenant has no usable one."""
    mailer = ExactCharField(max_length=100, blank=True)
    tenant = ExactCharField(max_length=255, blank=True)
    """Both: whose own account it is, as ``ACCOUNTS`` told; empty for that of a mailer. Where there
    is no account: whose it was to be."""
    free_at = models.DateTimeField(null=True)
    """Of a tenant's: before this, its pace lets no request go."""
    recent_requests = models.JSONField(default=list)
    """Unix seconds by which the latest requests have arrived, see :mod:`.rate_limit`.

    Oldest first; as many as the limits look back.
    """
    paused_until = models.DateTimeField(null=True)
    failures = models.PositiveIntegerField(default=0)
    """How many requests in a row failed for a fault that was not the emails'."""
    error_code = models.CharField(max_length=100, blank=True)
    error = models.TextField(blank=True)
    allows_fallback = models.BooleanField(default=False)
    """Whether emails go to the fallback mailer while it is paused."""
    capabilities = models.JSONField(default=dict)
    """What the account has shown to accept; see
    :meth:`~truncus_django.api.client.TruncusClient.capabilities`."""
    follow_up_at = models.DateTimeField(null=True)
    """For when a task has been put into the queue that goes on with the outbox."""

    objects: ClassVar[models.Manager["OutboxAccount"]] = LogManager()

    class Meta:
        verbose_name = _("account of the outbox")
        verbose_name_plural = _("accounts of the outbox")
        indexes: ClassVar = [models.Index(fields=["tenant", "mailer"], name="truncus_acct_tenant")]

    def __str__(self) -> str:
        return str(self.account)[:12]


class AccountQuota(models.Model):
    """What is known of a Truncus account's quota; see :mod:`truncus_django.quota.figures`.

    A row of its own and not a part of :class:`OutboxAccount`, whose row workers lock: a direct
    send waits for none of them.
    """

    account = ExactCharField(primary_key=True, max_length=100)
    mailer = ExactCharField(max_length=100, blank=True)
    tenant = ExactCharField(max_length=255, blank=True)
    """All three as in :class:`OutboxAccount`."""
    month = models.DateField(null=True)
    """The first day of the month (UTC) that the figures are of."""
    limit = models.PositiveBigIntegerField(null=True)
    sent = models.PositiveBigIntegerField(null=True)
    remaining = models.PositiveBigIntegerField(null=True)
    told_at = models.DateTimeField(null=True)
    emails_per_day = models.FloatField(default=0.0)
    told_percent = models.PositiveSmallIntegerField(default=0)
    """The highest threshold that the signal ``quota_threshold`` has told in the month."""
    capped = models.JSONField(default=dict)
    """Domain → until when (unix seconds) its daily cap is taken to be used up."""
    version = models.PositiveBigIntegerField(default=0)
    """Grows with each change. Of several processes that have read one, the first writes."""

    objects: ClassVar[models.Manager["AccountQuota"]] = LogManager()

    class Meta:
        verbose_name = _("quota of an account")
        verbose_name_plural = _("quotas of accounts")

    def __str__(self) -> str:
        return str(self.account)[:12]


class Handover(models.TextChoices):
    """How far an email of the outbox has come with the fallback mailer."""

    BEGUN = "begun", _("begun")
    """It may be sent by now, and is not tried again unless the mailer says that it was not."""
    REFUSED = "refused", _("refused")
    """It waits for Truncus: the mailer may not or will not send it."""


class OutboxBatch(models.Model):
    """One request, fixed before it is first made: its emails, their order, and its key.

    Whoever takes it moves ``due_at`` to the end of the lease and writes a ``lease`` of its own;
    a worker that dies leaves a batch that is due again when the lease has run out.
    """

    id = models.UUIDField(primary_key=True, default=time_ordered_uuid, editable=False)
    idempotency_key = ExactCharField(max_length=255)
    has_own_key = models.BooleanField(default=False)
    """Whether the key is the message's own, which is never replaced by another."""
    mailer = ExactCharField(max_length=100, blank=True)
    tenant = ExactCharField(max_length=255, blank=True)
    """As in :class:`OutboxEntry`."""
    account = ExactCharField(max_length=100, blank=True)
    """Where the key was used; another account knows nothing of it."""
    is_sandbox = models.BooleanField(default=False)
    priority = models.PositiveSmallIntegerField(choices=Priority.choices)
    due_at = models.DateTimeField()
    """When it may be taken: its next attempt, or the end of the present lease."""
    lease = models.UUIDField(null=True)
    """Whose it is; empty between two attempts."""
    attempts = models.PositiveIntegerField(default=0)
    size = models.PositiveSmallIntegerField(default=0)
    """How many emails its latest request held."""
    failures = models.PositiveIntegerField(default=0)
    """Requests in a row that failed; those of a larger batch that it was a part of do not count."""
    created_at = models.DateTimeField(default=timezone.now)
    first_request_at = models.DateTimeField(null=True)
    """When its key was first used; Truncus forgets keys after 24 hours."""
    failing_since = models.DateTimeField(null=True)
    """When the first of its failures in a row was that count towards giving up."""
    is_ambiguous = models.BooleanField(default=False)
    """Whether a request of it may have been accepted; so from before each request to its answer."""
    wire_format = models.JSONField(null=True)
    """The one that its emails had at the first request whose outcome is ambiguous."""
    handover = models.CharField(max_length=7, choices=Handover.choices, blank=True)
    """How far its one email has come with the fallback mailer."""
    error_code = models.CharField(max_length=100, blank=True)
    error = models.TextField(blank=True)

    objects: ClassVar[models.Manager["OutboxBatch"]] = LogManager()

    class Meta:
        verbose_name = _("request of the outbox")
        verbose_name_plural = _("requests of the outbox")
        indexes: ClassVar = [
            models.Index(fields=["tenant", "mailer", "due_at"], name="truncus_batch_due")
        ]

    def __str__(self) -> str:
        return str(self.id)

    def is_being_sent(self, now: datetime) -> bool:
        """Return whether a worker has it; of one that died, until its lease has run out."""
        return self.lease is not None and self.due_at > now


class OutboxEntry(models.Model):
    """What is to be sent of an email, for as long as it may have to be sent.

    It waits, then it belongs to a batch, in whose request the entries stand in the order
    :data:`IN_ORDER`; where its email failed or is unknown, it is kept for a
    person to decide. When the email is sent it is deleted, or kept with ``STORE_BODIES``.
    """

    email = models.OneToOneField(
        Email, on_delete=models.CASCADE, primary_key=True, related_name="outbox_entry"
    )
    size = models.PositiveIntegerField()
    """Of the payload, in bytes."""
    mailer = ExactCharField(max_length=100, blank=True)
    tenant = ExactCharField(max_length=255, blank=True)
    """For whose own account ``ACCOUNTS`` is asked at each request; empty for the mailer's own."""
    is_sandbox = models.BooleanField(default=False)
    own_key = ExactCharField(max_length=255, blank=True)
    """The message's own idempotency key."""
    priority = models.PositiveSmallIntegerField(choices=Priority.choices, default=Priority.NORMAL)
    expires_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    is_waiting = models.BooleanField(default=True)
    is_retained = models.BooleanField(default=False)
    """Whether it stays when the email is sent, as ``STORE_BODIES`` of its mailer said."""
    batch = models.ForeignKey(
        OutboxBatch, on_delete=models.DO_NOTHING, null=True, related_name="entries"
    )
    """The database refuses to delete a batch with entries; Django need not look for them first."""
    traceparent = models.CharField(max_length=55, null=True)  # noqa: DJ001  None: no span
    """Of the span that enqueued it, as the W3C writes it; for telemetry."""
    payload = models.TextField()
    """The API's fields as JSON, attachments with them. Last: SQLite reads a row from the left."""

    IN_ORDER: ClassVar = ("priority", "created_at", "pk")
    """The most urgent first. None of these changes while its email is in a batch, so that
    the order of a batch stays what it was."""

    objects: ClassVar[models.Manager["OutboxEntry"]] = LogManager()

    class Meta:
        verbose_name = _("entry of the outbox")
        verbose_name_plural = _("entries of the outbox")
        indexes: ClassVar = [
            models.Index(
                fields=["is_waiting", "tenant", "mailer", "priority", "created_at"],
                name="truncus_entry_next",
            ),
            models.Index(fields=["is_waiting", "expires_at"], name="truncus_entry_expires"),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class BulkEmail(models.Model):
    """An email of a bulk that has a key: a later run with the key does not send it again.

    It goes with its email; what the log has forgotten is sent again.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    """A digest of the key and of whom the email is for. It is unique, so that of two processes
    which send the same bulk at once one alone writes the email."""
    key = ExactCharField(max_length=200)
    email = models.OneToOneField(Email, on_delete=models.CASCADE, related_name="bulk")

    objects: ClassVar[models.Manager["BulkEmail"]] = LogManager()

    class Meta:
        verbose_name = _("email of a bulk")
        verbose_name_plural = _("emails of bulks")
        indexes: ClassVar = [models.Index(fields=["key"], name="truncus_bulk_key")]

    def __str__(self) -> str:
        return str(self.pk)
