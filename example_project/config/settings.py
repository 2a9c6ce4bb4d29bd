"""Settings of the example shop. What concerns email comes first."""

import os
from pathlib import Path
from typing import Any

import django

BASE_DIR = Path(__file__).resolve().parent.parent

# Where links in mails lead.
SITE_URL = os.environ.get("SITE_URL", "http://127.0.0.1:8000")

# Email -----------------------------------------------------------------------------------------

# Without an account: any key, and the address of ``python -m truncus_django.emulator``.
TRUNCUS: dict[str, Any] = {
    "API_KEY": os.environ.get("TRUNCUS_API_KEY", "tr_test_demo"),
    "BASE_URL": os.environ.get("TRUNCUS_BASE_URL", "http://127.0.0.1:8025"),
    "TENANT_ID": "shop",
    "SUPPRESS": "learn",  # who bounced or complained is not mailed again
    "WEBHOOK_SECRETS": [os.environ.get("TRUNCUS_WEBHOOK_SECRET", "only-for-the-example-project")],
    # The shop's mails hold nothing secret but password links, which expire; a real site would
    # rather not keep bodies.
    "STORE_BODIES": True,
    # The templates have their CSS in one place; mail clients want it in attributes.
    "INLINE_CSS": True,
    # Whoever has enough of the digest says so with one click.
    "UNSUBSCRIBE_BASE_URL": SITE_URL,
    # SHOP_DELIVERY=outbox makes sending a part of the shop's transactions. Then "manage.py
    # truncus_worker" sends, or with SHOP_DISPATCHER=celery "celery -A config worker --beat".
    "DELIVERY": os.environ.get("SHOP_DELIVERY", "direct"),
    "DISPATCHER": os.environ.get("SHOP_DISPATCHER", "worker"),
    # Of each month's emails so many are kept for orders and password links: once no more are left,
    # newsletters wait in the outbox.
    "QUOTA_RESERVE": 0.02,
    # Whoever brings it may read /truncus/health/ and /metrics/; without one, nobody but staff may
    # read the former.
    "HEALTH_TOKEN": os.environ.get("TRUNCUS_HEALTH_TOKEN"),
}
# SHOP_STAGING=1: whomever an email is for, it goes to those who work on the site.
STAGING_GUARD = {
    "REDIRECT_TO": ["developer@example.com"],
    "ALLOW_RECIPIENTS": ["owner@example.com"],
}
if os.environ.get("SHOP_STAGING") == "1":
    TRUNCUS |= STAGING_GUARD
CELERY_BROKER_URL = os.environ.get("SHOP_BROKER", "redis://127.0.0.1:6379/0")
CELERY_TASK_IGNORE_RESULT = True

# What each mailer changes about TRUNCUS. A tenant has a suppression list of its own: whoever
# complains about the newsletter still gets the confirmation of an order.
MAILER_OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "newsletter": {"tenant_id": "newsletter", "track_opens": False, "track_clicks": False},
    "rehearsal": {"tenant_id": "newsletter", "sandbox": True},
}

# What Truncus certainly did not take, for example as its key is refused, goes another way: to the
# SMTP server that SHOP_FALLBACK_HOST names, else into files.
FALLBACK_HOST = os.environ.get("SHOP_FALLBACK_HOST", "")
FALLBACK_BACKEND = (
    f"django.core.mail.backends.{'smtp' if FALLBACK_HOST else 'filebased'}.EmailBackend"
)
FALLBACK_FILES = os.environ.get("SHOP_FALLBACK_FILES", BASE_DIR / "fallback_emails")
FALLBACK_SERVER = {
    "host": FALLBACK_HOST,
    "port": 587,
    "use_tls": True,
    "username": os.environ.get("SHOP_FALLBACK_USER", ""),
    "password": os.environ.get("SHOP_FALLBACK_PASSWORD", ""),
    "timeout": 10,
}

if django.VERSION >= (6, 1):
    MAILERS = {
        alias: {"BACKEND": "truncus_django.backend.TruncusBackend", "OPTIONS": options}
        for alias, options in MAILER_OPTIONS.items()
    }
    MAILERS["fallback"] = {
        "BACKEND": FALLBACK_BACKEND,
        "OPTIONS": FALLBACK_SERVER if FALLBACK_HOST else {"file_path": FALLBACK_FILES},
    }
    TRUNCUS["FALLBACK_MAILER"] = "fallback"
else:
    EMAIL_BACKEND = "truncus_django.backend.TruncusBackend"
    TRUNCUS["FALLBACK_MAILER"] = FALLBACK_BACKEND
    EMAIL_FILE_PATH = FALLBACK_FILES
    EMAIL_HOST = FALLBACK_SERVER["host"]
    EMAIL_PORT = FALLBACK_SERVER["port"]
    EMAIL_USE_TLS = FALLBACK_SERVER["use_tls"]
    EMAIL_HOST_USER = FALLBACK_SERVER["username"]
    EMAIL_HOST_PASSWORD = FALLBACK_SERVER["password"]
    EMAIL_TIMEOUT = FALLBACK_SERVER["timeout"]

DEFAULT_FROM_EMAIL = "Leaf & Kettle <tea@example.com>"
SERVER_EMAIL = "Leaf & Kettle server <server@example.com>"
EMAIL_SUBJECT_PREFIX = "[Leaf & Kettle] "
ADMINS: list[Any] = (
    ["owner@example.com"] if django.VERSION >= (6, 0) else [("Owner", "owner@example.com")]
)

# Monitoring: urls.py has the health endpoint, and a page for Prometheus where its client is
# installed. Traces need no setting: with the extra "otel" they go where the site's other ones go.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "fields": {
            "()": "config.logs.FieldsFormatter",
            "format": "{levelname} {message}",
            "style": "{",
        },
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "fields"}},
    "loggers": {"truncus_django": {"handlers": ["console"], "level": "INFO"}},
}

# Everything else --------------------------------------------------------------------------------

DEBUG = os.environ.get("DEBUG", "1") == "1"
SECRET_KEY = os.environ.get("SECRET_KEY", "only-for-the-example-project-on-your-own-machine")
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "shop",  # before the admin, whose password pages have the same names
    "truncus_django",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_DATABASE", BASE_DIR / "shop.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "front"
LOGOUT_REDIRECT_URL = "front"
LANGUAGE_CODE = "en-gb"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
TIME_ZONE = "Europe/Berlin"
USE_TZ = True
STATIC_URL = "static/"
