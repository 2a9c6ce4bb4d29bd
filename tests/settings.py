"""Settings of the test suite: the backend under test, on every supported Django."""

import os
from pathlib import Path

import django

from tests.databases import database

SECRET_KEY = "tests"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "truncus_django",
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
        "DIRS": [Path(__file__).parent / "templates"],  # those of the documentation
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
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STATIC_URL = "static/"
ROOT_URLCONF = "tests.urls"
DATABASES = {"default": database(os.environ.get("TEST_DATABASE", "sqlite"))}
SERVER_EMAIL = "errors@example.com"
DEFAULT_FROM_EMAIL = "Shop <shop@example.com>"
ADMINS = ["admin@example.com"] if django.VERSION >= (6, 0) else [("Admin", "admin@example.com")]
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "truncus_django.backend.TruncusBackend"}}
else:
    EMAIL_BACKEND = "truncus_django.backend.TruncusBackend"
TRUNCUS = {"API_KEY": "tr_test_unit", "RECORD": False}  # tests/log records
