"""The facts of the Truncus API: paths, header names, limits, codes and states.

Sources, as cited in the comments below:

* **M**: the Truncus manual, page "POST /v1/send" (2026-03-03).
* **M+**: the manual's pages on idempotency, webhooks, delivery, replay, domains and quickstart.
* **P1**, **P4**: the official Python SDK, versions 0.1.0 and 0.4.0.
* **A**: the vendor's API summary for agents (2026-03-11).

The client and the local emulator both read their facts here, and nowhere else.
"""

from typing import Final

DEFAULT_BASE_URL: Final = "https://truncus.co"

# Paths, below the base URL. ------------------------------------------------------------------
SEND_PATH: Final = "/api/v1/emails/send"
BATCH_PATH: Final = "/api/v1/emails/batch"  # P4
VALIDATE_PATH: Final = "/api/v1/emails/validate"  # P4
EMAIL_PATH: Final = "/api/v1/emails/{id}"  # GET reads (all), DELETE cancels (A)
EVENTS_PATH: Final = "/api/v1/events"  # M+, with ?message_id=
REPLAY_EVENT_PATH: Final = "/api/v1/events/{id}/replay"  # M+
REPLAY_MESSAGE_PATH: Final = "/api/v1/messages/{id}/replay"  # M+

# Headers. ------------------------------------------------------------------------------------
IDEMPOTENCY_KEY_HEADER: Final = "Idempotency-Key"
SANDBOX_HEADER: Final = "X-Truncus-Sandbox"  # P4, A
RETRY_AFTER_HEADER: Final = "Retry-After"
RATE_LIMIT_HEADER: Final = "X-RateLimit-Limit"  # A
RATE_REMAINING_HEADER: Final = "X-RateLimit-Remaining"  # A
RATE_RESET_HEADER: Final = "X-RateLimit-Reset"  # A, unix seconds
MONTHLY_LIMIT_HEADER: Final = "X-Monthly-Limit"  # A
MONTHLY_SENT_HEADER: Final = "X-Monthly-Sent"  # A
MONTHLY_REMAINING_HEADER: Final = "X-Monthly-Remaining"  # A
REQUEST_ID_HEADER: Final = "X-Request-Id"  # not documented; kept when a proxy or the API sends it
SIGNATURE_HEADER: Final = "Truncus-Signature"  # M+
TIMESTAMP_HEADER: Final = "Truncus-Timestamp"  # M+, unix seconds

# Keys. ---------------------------------------------------------------------------------------
API_KEY_PREFIX: Final = "tr_"
LIVE_KEY_PREFIX: Final = "tr_live_"
SEND_SCOPE: Final = "send"
READ_SCOPE: Final = "read_events"

# Limits. -------------------------------------------------------------------------------------
MAX_HTML_BYTES: Final = 256 * 1024  # A
MAX_TEXT_BYTES: Final = 128 * 1024  # A
MAX_ATTACHMENTS: Final = 10  # A
MAX_ATTACHMENT_BYTES: Final = 10 * 1024 * 1024  # A: of all attachments together, before base64
MAX_BATCH_SIZE: Final = 100  # P4
IDEMPOTENCY_LIFE_S: Final = 24 * 60 * 60  # M+
REQUESTS_PER_SECOND: Final = 10  # A
REQUESTS_PER_MINUTE: Final = 60  # A
EVENTS_KEPT_DAYS: Final = 90  # M+
WEBHOOK_TOLERANCE_S: Final = 300  # M+
WEBHOOK_SIGNATURE_PREFIX: Final = "tcsig_"  # M+: in the page's example value, not in its code

# States of an email in an answer to send. -----------------------------------------------------
DELIVERED: Final = "delivered"  # M
BOUNCED: Final = "bounced"  # M
REJECTED: Final = "rejected"  # M
SENT: Final = "sent"  # P4, A
SANDBOX: Final = "sandbox"  # P1; P4 says "sent" with sandbox: true
SCHEDULED: Final = "scheduled"  # P4, A
QUEUED: Final = "queued"  # P4, A
BLOCKED: Final = "blocked"  # P4, A
DUPLICATE: Final = "duplicate"  # P4, A
FAILED: Final = "failed"  # P4: in a batch, or with HTTP 502
CANCELLED: Final = "cancelled"  # A

ACCEPTED_STATUSES: Final = frozenset(
    {SENT, DELIVERED, SCHEDULED, QUEUED, DUPLICATE, SANDBOX, BOUNCED}
)
REFUSED_STATUSES: Final = frozenset({BLOCKED, REJECTED, FAILED})

BOUNCE_REASONS: Final = (  # M
    "mailbox_full",
    "mailbox_does_not_exist",
    "no_mx_record",
    "connection_timeout",
)
PERMANENT_REASONS: Final = frozenset({"mailbox_does_not_exist", "no_mx_record"})  # M
SUPPRESSION_REASON: Final = "suppression_list"  # M
REJECTION_REASONS: Final = ("suppression_list", "invalid_address", "domain_not_verified")  # M

EVENT_TYPES: Final = (  # P4, A
    "queued",
    "sent",
    "delivered",
    "bounced",
    "complained",
    "opened",
    "clicked",
)
WEBHOOK_EVENT: Final = "email.delivery"  # M+; other names must be expected

# Error codes. The lower-case ones are the manual's, the others the SDK's and A's. ----------------
INVALID_REQUEST_CODES: Final = frozenset(
    {"invalid_payload", "invalid_address", "INVALID_REQUEST", "MISSING_IDEMPOTENCY_KEY"}
)
AUTHENTICATION_CODES: Final = frozenset(
    {"invalid_api_key", "MISSING_API_KEY", "INVALID_API_KEY", "API_KEY_REVOKED"}
)
SCOPE_CODE: Final = "SCOPE_REQUIRED"
DOMAIN_CODES: Final = frozenset(
    {
        "domain_not_verified",
        "DOMAIN_NOT_FOUND",
        "DOMAIN_NOT_VERIFIED",
        "DOMAIN_PAUSED",
        "DOMAIN_TYPE_MISMATCH",
    }
)
SUPPRESSED_CODE: Final = "ALL_RECIPIENTS_SUPPRESSED"  # 422 in P1, 200 "blocked" in P4
MONTHLY_CODE: Final = "MONTHLY_LIMIT_EXCEEDED"
WARMUP_CODE: Final = "WARMUP_CAP_EXCEEDED"  # of one domain and day
QUOTA_CODES: Final = frozenset({MONTHLY_CODE, WARMUP_CODE})
PROVIDER_ERROR_CODE: Final = "PROVIDER_ERROR"
TRANSIENT_CODE: Final = "transient_failure"
TIMEOUT_CODE: Final = "TIMEOUT"  # the SDK's own name for no answer in time
NETWORK_CODE: Final = "NETWORK_ERROR"  # the SDK's own name for no connection
