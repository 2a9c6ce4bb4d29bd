"""Settings of a site in a process of its own. What differs comes as JSON in ``SITE``."""

import json
import os

import django

_given = json.loads(os.environ["SITE"])

SECRET_KEY = "site"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "truncus_django", *_given.get("apps", [])]
DATABASES = {"default": _given["database"]}
if DATABASES["default"]["ENGINE"].endswith("mysql"):
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
BACKEND = _given.get("backend", "truncus_django.backend.TruncusBackend")
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": BACKEND}}
else:
    EMAIL_BACKEND = BACKEND
SERVER_EMAIL = DEFAULT_FROM_EMAIL = "shop@example.com"
TRUNCUS = _given["truncus"]
if "tasks" in _given:
    TASKS = _given["tasks"]
