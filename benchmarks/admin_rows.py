"""What the databases of :mod:`benchmarks.admin_pages` hold: the same made-up emails in both.

Each email has random numbers of its own, the same in each run. The log has three events for most.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

DAYS = 365
"""The emails are spread over so many, up to now."""
SLICE = 100_000
"""So many are filled in at a time."""

_SETTINGS = (
    "synchronous_commit = off",
    "maintenance_work_mem = '1GB'",
    "work_mem = '128MB'",
    "jit = off",
)
"""Of the session, while it fills."""
_CONSTRAINTS_SQL = """
    SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname),
        format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', conrelid::regclass, conname,
            pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE conrelid = ANY(%s::regclass[]) AND contype IN ('u', 'f')
    ORDER BY contype DESC
"""
_INDEXES_SQL = """
    SELECT format('DROP INDEX %%s', indexrelid::regclass), pg_get_indexdef(indexrelid)
    FROM pg_index WHERE indrelid = ANY(%s::regclass[]) AND NOT indisprimary
"""

_MAILS_SQL = """
    SELECT n, fate, engagement,
        %(until)s - (1 - n::float / %(rows)s) * interval '1 day' * %(days)s AS moment,
        md5(n::text) AS digest,
        (ARRAY['shop', 'newsletter', 'support', 'blog', 'billing', 'events', 'jobs', 'partners',
            'press', 'school', 'travel', ''])[1 + floor(12 * whose ^ 3)::int] AS tenant,
        (ARRAY['anna', 'bea', 'carl', 'dora', 'emil', 'fatma', 'georg', 'hanna', 'ivan', 'jana',
            'kemal', 'lena', 'marie', 'nils', 'olga', 'paul', 'quirin', 'rosa', 'stefan', 'tarek',
            'ute', 'viktor', 'wanda', 'xenia', 'yusuf', 'zoe'])[1 + floor(26 * first)::int]
        || '.' ||
        (ARRAY['adler', 'bauer', 'celik', 'dietz', 'ernst', 'fuchs', 'graf', 'huber', 'ilic',
            'jansen', 'keller', 'lang', 'meyer', 'nowak', 'otto', 'peters', 'quast', 'richter',
            'schulz', 'thoma', 'ulrich', 'vogel', 'weber', 'xander', 'yilmaz', 'zeller'])
            [1 + floor(26 * last)::int]
        || floor(400 * which)::int || '@' ||
        (ARRAY['gmail.example', 'mail.example', 'outlook.example', 'web.example', 'gmx.example',
            'icloud.example', 'posteo.example', 'firma.example'])[1 + floor(8 * host ^ 2)::int]
            AS address,
        CASE
            WHEN topic < 0.40 THEN 'Your order LK-' || lpad(n::text, 8, '0') || ' is on its way'
            WHEN topic < 0.70 THEN 'New in the shop this week: tea no. ' || floor(52 * first)::int
            WHEN topic < 0.85 THEN 'Choose your password'
            WHEN topic < 0.95 THEN 'Invoice ' || lpad((n * 7)::text, 9, '0')
            WHEN topic < 0.999 THEN 'Please confirm your address'
            ELSE 'Your refund for LK-' || lpad(n::text, 8, '0')
        END AS subject
    FROM (
        SELECT n, random() AS fate, random() AS engagement, random() AS whose, random() AS first,
            random() AS last, random() AS which, random() AS host, random() AS topic
        FROM generate_series(%(first)s::int, %(last)s::int) AS n
    ) AS numbers
"""

EMAILS_SQL = f"""
    INSERT INTO truncus_django_email (
        id, message_id, global_message_id, provider_message_id, idempotency_key, batch_index,
        mailer, state, reason, error_code, error, from_email, "to", cc, bcc, subject, search_text,
        tenant_id, template_id, metadata, is_sandbox, track_opens, track_clicks, attachments,
        attachment_count, attachment_bytes, text_body, html_body, resend_of_id, send_at, created_at,
        sent_at, delivered_at, bounced_at, complained_at, first_opened_at, last_opened_at,
        open_count, click_count, attempts, next_sync_at, answers_until, redirected_to, suppressed,
        unsubscribe_list, sent_by, forgotten_at, forget_when_finished
    )
    SELECT
        (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7'
            || substr(digest, 1, 3) || 'a' || substr(digest, 4, 15))::uuid,
        'cm5wq' || lpad(n::text, 20, '0'), 'gm_' || digest, '0100019' || digest || '-000000',
        CASE WHEN tenant = 'newsletter' THEN md5((n / 100)::text) ELSE md5('key' || n) END,
        CASE WHEN tenant = 'newsletter' THEN n %% 100 END,
        CASE WHEN tenant = 'newsletter' THEN 'newsletter' ELSE 'default' END, state,
        CASE
            WHEN state = 'bounced' THEN
                (ARRAY['mailbox_does_not_exist', 'mailbox_full', 'no_mx_record',
                    'connection_timeout', 'message_too_large'])[1 + floor(5 * engagement ^ 2)::int]
            WHEN state = 'rejected' THEN 'suppressed'
            ELSE ''
        END,
        CASE WHEN state = 'failed' THEN 'VALIDATION_ERROR' ELSE '' END,
        CASE WHEN state = 'failed' THEN 'The address is not valid.' ELSE '' END,
        'Shop <shop@example.com>', jsonb_build_array(address),
        CASE WHEN n %% 40 = 0 THEN '["archive@example.com"]' ELSE '[]' END::jsonb, '[]', subject,
        lower(address || ' ' || CASE WHEN n %% 40 = 0 THEN 'archive@example.com ' ELSE '' END
            || subject || ' ' || n),
        tenant, CASE WHEN tenant = 'newsletter' THEN 'weekly' ELSE '' END,
        jsonb_build_object('order', n::text), n %% 100 = 1, NULL, NULL,
        CASE WHEN n %% 20 = 0 THEN
            '[{{"filename": "invoice.pdf", "content_type": "application/pdf", "size": 48123}}]'
            ELSE '[]' END::jsonb,
        CASE WHEN n %% 20 = 0 THEN 1 ELSE 0 END, CASE WHEN n %% 20 = 0 THEN 48123 ELSE 0 END,
        NULL, NULL, NULL, NULL, moment,
        CASE WHEN state IN ('sent', 'delivered', 'bounced', 'complained') THEN moment END,
        CASE WHEN arrived THEN moment + interval '3 s' END,
        CASE WHEN state = 'bounced' THEN moment + interval '9 s' END,
        CASE WHEN state = 'complained' THEN moment + interval '5 h' END,
        CASE WHEN opened THEN moment + engagement * interval '2 days' END,
        CASE WHEN opened THEN moment + engagement * interval '4 days' END,
        CASE WHEN opened THEN 1 + n %% 4 ELSE 0 END,
        CASE WHEN opened AND engagement < 0.1 THEN 1 + n %% 2 ELSE 0 END,
        1, CASE WHEN state IN ('sent', 'delivered') AND moment > %(until)s - interval '90 days'
            THEN %(until)s + engagement * interval '7 days' END,
        NULL, '[]', '[]', '', '', NULL, ''
    FROM (
        SELECT *, state IN ('delivered', 'complained') AS arrived,
            state IN ('delivered', 'complained') AND engagement < 0.45 AS opened
        FROM (
            SELECT *, CASE
                WHEN n > %(rows)s * 0.9998 THEN 'sent'
                WHEN fate < 0.955 THEN 'delivered'
                WHEN fate < 0.982 THEN 'bounced'
                WHEN fate < 0.984 THEN 'complained'
                WHEN fate < 0.997 THEN 'rejected'
                ELSE 'failed'
            END AS state
            FROM ({_MAILS_SQL}) AS mails
        ) AS stated
    ) AS emails
    ORDER BY n
"""

EVENTS_SQL = """
    INSERT INTO truncus_django_emailevent (
        id, email_id, message_id, event_id, type, reason, recipient, occurred_at, received_at,
        source, payload
    )
    SELECT
        (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || '7'
            || substr(digest, 1, 3) || 'a' || substr(digest, 4, 15))::uuid,
        email_id, message_id, digest || md5(digest), type, reason, recipient, moment, moment,
        'webhook', jsonb_build_object('event', 'email.delivery', 'message_id', message_id,
            'status', type, 'timestamp', extract(epoch FROM moment)::bigint)
    FROM (
        SELECT emails.id AS email_id, message_id, md5(emails.id::text || type || number) AS digest,
            type, CASE WHEN type = 'bounced' THEN reason ELSE '' END AS reason,
            "to"->>0 AS recipient, happened AS moment
        FROM emails, LATERAL (
            SELECT 'sent' AS type, 1 AS number, sent_at AS happened
            UNION ALL SELECT 'delivered', 1, delivered_at
            UNION ALL SELECT 'bounced', 1, bounced_at
            UNION ALL SELECT 'complained', 1, complained_at
            UNION ALL SELECT 'opened', number, first_opened_at
                + (last_opened_at - first_opened_at) * (number - 1) / greatest(open_count - 1, 1)
                FROM generate_series(1, open_count) AS number
            UNION ALL SELECT 'clicked', number, first_opened_at + number * interval '5 s'
                FROM generate_series(1, click_count) AS number
        ) AS told
        WHERE happened IS NOT NULL
    ) AS events
    ORDER BY moment
"""

LOG_SQL = f"WITH emails AS ({EMAILS_SQL} RETURNING *) {EVENTS_SQL}"

POST_OFFICE_SQL = f"""
    INSERT INTO post_office_email (
        from_email, "to", cc, bcc, subject, message, html_message, status,
        recipient_delivery_status, priority, created, last_updated, scheduled_time, expires_at,
        message_id, number_of_retries, headers, template_id, context, backend_alias
    )
    SELECT 'Shop <shop@example.com>', address,
        CASE WHEN n %% 40 = 0 THEN 'archive@example.com' ELSE '' END, '', subject,
        'Hello, thank you for your order ' || n || '.',
        '<p>Hello, thank you for your order ' || n || '.</p>',
        CASE WHEN fate < 0.997 THEN 0 ELSE 1 END,
        CASE WHEN fate < 0.955 THEN 20 WHEN fate < 0.982 THEN 70 WHEN fate < 0.984 THEN 80 END,
        1, moment, moment + interval '3 s', NULL, NULL,
        '<' || digest || '@example.com>', NULL, NULL, NULL, NULL, 'default'
    FROM ({_MAILS_SQL}) AS mails
    ORDER BY n
"""


def fill(sql: str, tables: Sequence[str], rows: int) -> Iterator[str]:
    """Fill tables with so many emails, and let the planner know them; yield how far it is.

    Indexes and foreign keys are made afterwards, which takes less time.
    """
    from django.db import connection

    with connection.cursor() as cursor:
        for setting in _SETTINGS:
            cursor.execute(f"SET {setting}")
        made_again = []
        for select in (_CONSTRAINTS_SQL, _INDEXES_SQL):
            cursor.execute(select, [list(tables)])
            for drop, create in cursor.fetchall():
                cursor.execute(drop)
                made_again.append(create)
        cursor.execute("SELECT setseed(0.5)")
        span: dict[str, Any] = {"rows": rows, "days": DAYS, "until": datetime.now(UTC)}
        for first in range(1, rows + 1, SLICE):
            yield f"{first - 1:,} of {rows:,} emails"
            cursor.execute(sql, {**span, "first": first, "last": min(rows, first + SLICE - 1)})
        for create in reversed(made_again):
            yield create
            cursor.execute(create)
        yield "VACUUM ANALYZE"
        cursor.execute("VACUUM ANALYZE")
        for setting in _SETTINGS:
            cursor.execute(f"RESET {setting.partition(' ')[0]}")
