"""Settings of the test suite: the backend under test, on every supported Django."""

import os

import django

from tests.databases import database

SECRET_KEY = "tests"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "truncus_django"]
DATABASES = {"default": database(os.environ.get("TEST_DATABASE", "sqlite"))}
SERVER_EMAIL = "errors@example.com"
DEFAULT_FROM_EMAIL = "Shop <shop@example.com>"
ADMINS = ["admin@example.com"] if django.VERSION >= (6, 0) else [("Admin", "admin@example.com")]
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "truncus_django.backend.TruncusBackend"}}
else:
    EMAIL_BACKEND = "truncus_django.backend.TruncusBackend"
TRUNCUS = {"API_KEY": "tr_test_unit", "RECORD": False}  # tests/log records
