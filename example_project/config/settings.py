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
TRUNCUS = {
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
}
CELERY_BROKER_URL = os.environ.get("SHOP_BROKER", "redis://127.0.0.1:6379/0")
CELERY_TASK_IGNORE_RESULT = True

# What each mailer changes about TRUNCUS. A tenant has a suppression list of its own: whoever
# complains about the newsletter still gets the confirmation of an order.
MAILER_OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "newsletter": {"tenant_id": "newsletter", "track_opens": False, "track_clicks": False},
    "rehearsal": {"tenant_id": "newsletter", "sandbox": True},
}

if django.VERSION >= (6, 1):
    MAILERS = {
        alias: {"BACKEND": "truncus_django.backend.TruncusBackend", "OPTIONS": options}
        for alias, options in MAILER_OPTIONS.items()
    }
else:
    EMAIL_BACKEND = "truncus_django.backend.TruncusBackend"

DEFAULT_FROM_EMAIL = "Leaf & Kettle <tea@example.com>"
SERVER_EMAIL = "Leaf & Kettle server <server@example.com>"
EMAIL_SUBJECT_PREFIX = "[Leaf & Kettle] "
ADMINS: list[Any] = (
    ["owner@example.com"] if django.VERSION >= (6, 0) else [("Owner", "owner@example.com")]
)

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
