"""All tables of the package, and an index for searching inside addresses and subjects.

``pg_trgm`` is a trusted extension since PostgreSQL 13: whoever may create things in a database
may create it. Where that is not so, the search still works, and reads the table.
"""

import django.db.models.deletion
import django.utils.timezone
from django.core.management.base import CommandError
from django.db import Error, migrations, models, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

import truncus_django.db.fields
import truncus_django.db.indexes
import truncus_django.db.uuid7

INDEX = "truncus_email_search"


def create_index(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    connection = schema_editor.connection
    if connection.vendor != "postgresql":
        return
    table = connection.ops.quote_name(apps.get_model("truncus_django", "Email")._meta.db_table)
    try:
        with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
            cursor.execute(f"CREATE INDEX {INDEX} ON {table} USING gin (search_text gin_trgm_ops)")
    except Error:
        return


def drop_index(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(f"DROP INDEX IF EXISTS {INDEX}")


def nothing_to_do(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Forwards: the tables are new."""


def refuse_to_drop_emails(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """Backwards: emails that are still to be sent would be gone with the tables."""
    entries = apps.get_model("truncus_django", "OutboxEntry").objects
    waiting = (
        entries.using(schema_editor.connection.alias)
        .filter(models.Q(is_waiting=True) | models.Q(batch__isnull=False))
        .count()
    )
    if waiting:
        emails = "1 email that is" if waiting == 1 else f"{waiting} emails that are"
        raise CommandError(
            f"The outbox holds {emails} still to be sent, which going back would lose. Send "
            "what is due with manage.py truncus_worker --once, or cancel it in the admin; then "
            "migrate again."
        )


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Email",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=truncus_django.db.uuid7.time_ordered_uuid,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                        verbose_name="id",
                    ),
                ),
                (
                    "message_id",
                    truncus_django.db.fields.ExactCharField(
                        max_length=255, null=True, verbose_name="Truncus id"
                    ),
                ),
                (
                    "global_message_id",
                    truncus_django.db.fields.ExactCharField(
                        blank=True, max_length=255, verbose_name="global id"
                    ),
                ),
                (
                    "provider_message_id",
                    truncus_django.db.fields.ExactCharField(
                        blank=True, max_length=255, verbose_name="provider's id"
                    ),
                ),
                (
                    "idempotency_key",
                    truncus_django.db.fields.ExactCharField(
                        blank=True, max_length=255, verbose_name="idempotency key"
                    ),
                ),
                (
                    "batch_index",
                    models.PositiveSmallIntegerField(null=True, verbose_name="place in its batch"),
                ),
                (
                    "mailer",
                    truncus_django.db.fields.ExactCharField(
                        blank=True, max_length=100, verbose_name="mailer"
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "pending"),
                            ("sending", "sending"),
                            ("unknown", "unknown"),
                            ("scheduled", "scheduled"),
                            ("deferred", "deferred"),
                            ("sent", "sent"),
                            ("cancelled", "cancelled"),
                            ("expired", "expired"),
                            ("failed", "failed"),
                            ("rejected", "rejected"),
                            ("delivered", "delivered"),
                            ("bounced", "bounced"),
                            ("complained", "complained"),
                        ],
                        max_length=12,
                        verbose_name="state",
                    ),
                ),
                ("reason", models.CharField(blank=True, max_length=300, verbose_name="reason")),
                (
                    "error_code",
                    models.CharField(blank=True, max_length=100, verbose_name="error code"),
                ),
                ("error", models.TextField(blank=True, verbose_name="error")),
                ("from_email", models.CharField(blank=True, max_length=500, verbose_name="from")),
                ("to", models.JSONField(default=list, verbose_name="to")),
                ("cc", models.JSONField(default=list, verbose_name="cc")),
                ("bcc", models.JSONField(default=list, verbose_name="bcc")),
                ("redirected_to", models.JSONField(default=list, verbose_name="redirected to")),
                ("suppressed", models.JSONField(default=list, verbose_name="suppressed")),
                (
                    "unsubscribe_list",
                    truncus_django.db.fields.ExactCharField(
                        blank=True, max_length=100, verbose_name="unsubscribe list"
                    ),
                ),
                (
                    "sent_by",
                    truncus_django.db.fields.ExactCharField(
                        blank=True, max_length=200, verbose_name="sent by"
                    ),
                ),
                ("subject", models.CharField(blank=True, max_length=998, verbose_name="subject")),
                ("search_text", models.TextField(blank=True, editable=False)),
                (
                    "tenant_id",
                    truncus_django.db.fields.ExactCharField(
                        blank=True, max_length=255, verbose_name="tenant"
                    ),
                ),
                (
                    "template_id",
                    models.CharField(blank=True, max_length=255, verbose_name="template"),
                ),
                ("metadata", models.JSONField(default=dict, verbose_name="metadata")),
                ("is_sandbox", models.BooleanField(default=False, verbose_name="sandbox")),
                ("track_opens", models.BooleanField(null=True, verbose_name="opens tracked")),
                ("track_clicks", models.BooleanField(null=True, verbose_name="clicks tracked")),
                ("attachments", models.JSONField(default=list, verbose_name="attachments")),
                (
                    "attachment_count",
                    models.PositiveSmallIntegerField(default=0, verbose_name="attachments"),
                ),
                (
                    "attachment_bytes",
                    models.PositiveBigIntegerField(default=0, verbose_name="size of attachments"),
                ),
                ("text_body", models.TextField(null=True, verbose_name="text")),
                ("html_body", models.TextField(null=True, verbose_name="HTML")),
                ("send_at", models.DateTimeField(null=True, verbose_name="to be sent at")),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="created"),
                ),
                ("sent_at", models.DateTimeField(null=True, verbose_name="sent")),
                ("delivered_at", models.DateTimeField(null=True, verbose_name="delivered")),
                ("bounced_at", models.DateTimeField(null=True, verbose_name="bounced")),
                ("complained_at", models.DateTimeField(null=True, verbose_name="complained")),
                ("first_opened_at", models.DateTimeField(null=True, verbose_name="first opened")),
                ("last_opened_at", models.DateTimeField(null=True, verbose_name="last opened")),
                ("open_count", models.PositiveIntegerField(default=0, verbose_name="opens")),
                ("click_count", models.PositiveIntegerField(default=0, verbose_name="clicks")),
                ("attempts", models.PositiveSmallIntegerField(default=0, verbose_name="requests")),
                ("next_sync_at", models.DateTimeField(null=True, verbose_name="next sync")),
                ("answers_until", models.DateTimeField(null=True, verbose_name="last sync")),
                (
                    "forgotten_at",
                    models.DateTimeField(editable=False, null=True, verbose_name="forgotten"),
                ),
                ("forget_when_finished", models.TextField(blank=True, editable=False)),
                (
                    "resend_of",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="resends",
                        to="truncus_django.email",
                        verbose_name="resend of",
                    ),
                ),
            ],
            options={
                "verbose_name": "email",
                "verbose_name_plural": "emails",
                "ordering": ["-created_at"],
                "permissions": [
                    ("resend_email", "Can send an email again"),
                    ("cancel_email", "Can cancel an email that has yet to go out"),
                    ("sync_email", "Can ask Truncus about an email"),
                    ("export_email", "Can export emails"),
                    ("retry_email", "Can try again what the outbox has not sent"),
                    ("decide_email", "Can decide whether an unknown email was sent"),
                    ("forget_email", "Can forget a recipient, in all emails"),
                ],
            },
        ),
        migrations.CreateModel(
            name="OutboxAccount",
            fields=[
                (
                    "account",
                    truncus_django.db.fields.ExactCharField(
                        max_length=100, primary_key=True, serialize=False
                    ),
                ),
                ("mailer", truncus_django.db.fields.ExactCharField(blank=True, max_length=100)),
                ("tenant", truncus_django.db.fields.ExactCharField(blank=True, max_length=255)),
                ("free_at", models.DateTimeField(null=True)),
                ("recent_requests", models.JSONField(default=list)),
                ("paused_until", models.DateTimeField(null=True)),
                ("failures", models.PositiveIntegerField(default=0)),
                ("error_code", models.CharField(blank=True, max_length=100)),
                ("error", models.TextField(blank=True)),
                ("allows_fallback", models.BooleanField(default=False)),
                ("capabilities", models.JSONField(default=dict)),
                ("follow_up_at", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name": "account of the outbox",
                "verbose_name_plural": "accounts of the outbox",
                "indexes": [models.Index(fields=["tenant", "mailer"], name="truncus_acct_tenant")],
            },
        ),
        migrations.CreateModel(
            name="EmailEvent",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=truncus_django.db.uuid7.time_ordered_uuid,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                        verbose_name="id",
                    ),
                ),
                (
                    "message_id",
                    truncus_django.db.fields.ExactCharField(
                        max_length=255, verbose_name="Truncus id"
                    ),
                ),
                (
                    "event_id",
                    truncus_django.db.fields.ExactCharField(
                        max_length=255, verbose_name="event id"
                    ),
                ),
                ("type", models.CharField(max_length=60, verbose_name="type")),
                ("reason", models.CharField(blank=True, max_length=300, verbose_name="reason")),
                (
                    "recipient",
                    models.CharField(blank=True, max_length=500, verbose_name="recipient"),
                ),
                ("occurred_at", models.DateTimeField(verbose_name="time")),
                (
                    "received_at",
                    models.DateTimeField(
                        default=django.utils.timezone.now, verbose_name="received"
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        choices=[("webhook", "webhook"), ("sync", "sync")],
                        max_length=10,
                        verbose_name="source",
                    ),
                ),
                ("payload", models.JSONField(default=dict, verbose_name="payload")),
                (
                    "email",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="events",
                        to="truncus_django.email",
                        verbose_name="email",
                    ),
                ),
            ],
            options={
                "verbose_name": "event",
                "verbose_name_plural": "events",
                "ordering": ["occurred_at", "id"],
            },
        ),
        migrations.CreateModel(
            name="AccountQuota",
            fields=[
                (
                    "account",
                    truncus_django.db.fields.ExactCharField(
                        max_length=100, primary_key=True, serialize=False
                    ),
                ),
                ("mailer", truncus_django.db.fields.ExactCharField(blank=True, max_length=100)),
                ("tenant", truncus_django.db.fields.ExactCharField(blank=True, max_length=255)),
                ("month", models.DateField(null=True)),
                ("limit", models.PositiveBigIntegerField(null=True)),
                ("sent", models.PositiveBigIntegerField(null=True)),
                ("remaining", models.PositiveBigIntegerField(null=True)),
                ("told_at", models.DateTimeField(null=True)),
                ("emails_per_day", models.FloatField(default=0.0)),
                ("told_percent", models.PositiveSmallIntegerField(default=0)),
                ("capped", models.JSONField(default=dict)),
                ("version", models.PositiveBigIntegerField(default=0)),
            ],
            options={
                "verbose_name": "quota of an account",
                "verbose_name_plural": "quotas of accounts",
            },
        ),
        migrations.CreateModel(
            name="OutboxBatch",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=truncus_django.db.uuid7.time_ordered_uuid,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("idempotency_key", truncus_django.db.fields.ExactCharField(max_length=255)),
                ("has_own_key", models.BooleanField(default=False)),
                ("mailer", truncus_django.db.fields.ExactCharField(blank=True, max_length=100)),
                ("tenant", truncus_django.db.fields.ExactCharField(blank=True, max_length=255)),
                ("account", truncus_django.db.fields.ExactCharField(blank=True, max_length=100)),
                ("is_sandbox", models.BooleanField(default=False)),
                (
                    "priority",
                    models.PositiveSmallIntegerField(
                        choices=[(1, "high"), (5, "normal"), (9, "low")]
                    ),
                ),
                ("due_at", models.DateTimeField()),
                ("lease", models.UUIDField(null=True)),
                ("attempts", models.PositiveIntegerField(default=0)),
                ("size", models.PositiveSmallIntegerField(default=0)),
                ("failures", models.PositiveIntegerField(default=0)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("first_request_at", models.DateTimeField(null=True)),
                ("failing_since", models.DateTimeField(null=True)),
                ("is_ambiguous", models.BooleanField(default=False)),
                ("wire_format", models.JSONField(null=True)),
                (
                    "handover",
                    models.CharField(
                        blank=True,
                        choices=[("begun", "begun"), ("refused", "refused")],
                        max_length=7,
                    ),
                ),
                ("error_code", models.CharField(blank=True, max_length=100)),
                ("error", models.TextField(blank=True)),
            ],
            options={
                "verbose_name": "request of the outbox",
                "verbose_name_plural": "requests of the outbox",
                "indexes": [
                    models.Index(fields=["tenant", "mailer", "due_at"], name="truncus_batch_due")
                ],
            },
        ),
        migrations.CreateModel(
            name="OutboxEntry",
            fields=[
                (
                    "email",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="outbox_entry",
                        serialize=False,
                        to="truncus_django.email",
                    ),
                ),
                ("size", models.PositiveIntegerField()),
                ("mailer", truncus_django.db.fields.ExactCharField(blank=True, max_length=100)),
                ("tenant", truncus_django.db.fields.ExactCharField(blank=True, max_length=255)),
                ("is_sandbox", models.BooleanField(default=False)),
                ("own_key", truncus_django.db.fields.ExactCharField(blank=True, max_length=255)),
                (
                    "priority",
                    models.PositiveSmallIntegerField(
                        choices=[(1, "high"), (5, "normal"), (9, "low")], default=5
                    ),
                ),
                ("expires_at", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("is_waiting", models.BooleanField(default=True)),
                ("is_retained", models.BooleanField(default=False)),
                ("traceparent", models.CharField(max_length=55, null=True)),
                ("payload", models.TextField()),
                (
                    "batch",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="entries",
                        to="truncus_django.outboxbatch",
                    ),
                ),
            ],
            options={
                "verbose_name": "entry of the outbox",
                "verbose_name_plural": "entries of the outbox",
            },
        ),
        migrations.CreateModel(
            name="BulkEmail",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("key", truncus_django.db.fields.ExactCharField(max_length=200)),
                (
                    "email",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="bulk",
                        to="truncus_django.email",
                    ),
                ),
            ],
            options={
                "verbose_name": "email of a bulk",
                "verbose_name_plural": "emails of bulks",
                "indexes": [models.Index(fields=["key"], name="truncus_bulk_key")],
            },
        ),
        migrations.CreateModel(
            name="SuppressedAddress",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=truncus_django.db.uuid7.time_ordered_uuid,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                        verbose_name="id",
                    ),
                ),
                (
                    "address",
                    truncus_django.db.fields.ExactCharField(max_length=254, verbose_name="address"),
                ),
                (
                    "tenant_id",
                    truncus_django.db.fields.ExactCharField(
                        blank=True, max_length=255, verbose_name="tenant"
                    ),
                ),
                (
                    "list_name",
                    truncus_django.db.fields.ExactCharField(
                        blank=True, max_length=100, verbose_name="list"
                    ),
                ),
                (
                    "reason",
                    models.CharField(
                        choices=[
                            ("hard_bounce", "hard bounce"),
                            ("complaint", "complaint"),
                            ("blocked", "blocked by Truncus"),
                            ("unsubscribed", "unsubscribed"),
                            ("by_hand", "by hand"),
                        ],
                        default="by_hand",
                        max_length=12,
                        verbose_name="reason",
                    ),
                ),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("webhook", "webhook"),
                            ("sync", "sync"),
                            ("answer", "answer to a send"),
                            ("link", "unsubscribe link"),
                            ("admin", "admin"),
                            ("import", "import"),
                            ("code", "the project's code"),
                        ],
                        default="code",
                        max_length=10,
                        verbose_name="source",
                    ),
                ),
                ("note", models.CharField(blank=True, max_length=300, verbose_name="note")),
                (
                    "created_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="since"),
                ),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="until")),
                (
                    "email",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="truncus_django.email",
                        verbose_name="email",
                    ),
                ),
            ],
            options={
                "verbose_name": "suppressed address",
                "verbose_name_plural": "suppressed addresses",
                "ordering": ["-created_at"],
                "permissions": [("export_suppressedaddress", "Can export suppressed addresses")],
                "indexes": [models.Index(fields=["-created_at"], name="truncus_suppr_created")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("address", "tenant_id", "list_name"), name="truncus_suppr_address"
                    )
                ],
            },
        ),
        migrations.AddIndex(
            model_name="email",
            index=models.Index(fields=["-created_at"], name="truncus_email_created"),
        ),
        migrations.AddIndex(
            model_name="email",
            index=models.Index(fields=["state", "-created_at"], name="truncus_email_state"),
        ),
        migrations.AddIndex(
            model_name="email",
            index=models.Index(fields=["tenant_id", "-created_at"], name="truncus_email_tenant"),
        ),
        migrations.AddIndex(
            model_name="email",
            index=models.Index(fields=["mailer", "-created_at"], name="truncus_email_mailer"),
        ),
        migrations.AddIndex(
            model_name="email",
            index=models.Index(fields=["is_sandbox", "-created_at"], name="truncus_email_sandbox"),
        ),
        migrations.AddIndex(
            model_name="email",
            index=truncus_django.db.indexes.PartialIndex(
                fields=["resend_of"],
                name="truncus_email_resend_of",
                where=models.Q(("resend_of__isnull", False)),
            ),
        ),
        migrations.AddIndex(
            model_name="email",
            index=models.Index(fields=["next_sync_at"], name="truncus_email_next_sync"),
        ),
        migrations.AddIndex(
            model_name="email",
            index=models.Index(fields=["global_message_id"], name="truncus_email_global_id"),
        ),
        migrations.AddIndex(
            model_name="email",
            index=models.Index(fields=["provider_message_id"], name="truncus_email_provider_id"),
        ),
        migrations.AddIndex(
            model_name="email",
            index=models.Index(fields=["idempotency_key"], name="truncus_email_key"),
        ),
        migrations.AddConstraint(
            model_name="email",
            constraint=models.UniqueConstraint(
                fields=("message_id",), name="truncus_email_message_id"
            ),
        ),
        migrations.AddIndex(
            model_name="emailevent",
            index=models.Index(fields=["message_id"], name="truncus_event_message_id"),
        ),
        migrations.AddConstraint(
            model_name="emailevent",
            constraint=models.UniqueConstraint(fields=("event_id",), name="truncus_event_event_id"),
        ),
        migrations.AddIndex(
            model_name="outboxentry",
            index=models.Index(
                fields=["is_waiting", "tenant", "mailer", "priority", "created_at"],
                name="truncus_entry_next",
            ),
        ),
        migrations.AddIndex(
            model_name="outboxentry",
            index=models.Index(fields=["is_waiting", "expires_at"], name="truncus_entry_expires"),
        ),
        migrations.RunPython(create_index, drop_index),
        migrations.RunPython(nothing_to_do, refuse_to_drop_emails),
    ]
