"""Settings of the processes that are killed. What differs comes as JSON in ``CHAOS``."""

import json
import os

import django

_given = json.loads(os.environ["CHAOS"])

SECRET_KEY = "chaos"
USE_TZ = True
DEFAULT_FROM_EMAIL = SERVER_EMAIL = "shop@example.com"
INSTALLED_APPS = ["django.contrib.contenttypes", "truncus_django", "tests.chaos"]
DATABASES = {"default": _given["database"]}
if DATABASES["default"]["ENGINE"].endswith("mysql"):
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)
    pymysql.install_as_MySQLdb()
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
_BACKEND = "truncus_django.backend.TruncusBackend"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": _BACKEND}}
else:
    EMAIL_BACKEND = _BACKEND
if _fallback := _given.get("fallback"):
    if django.VERSION >= (6, 1):
        MAILERS |= _fallback
    else:
        [_config] = _fallback.values()
        for _name, _value in _config.get("OPTIONS", {}).items():
            globals()[f"EMAIL_{_name.upper()}"] = _value
TRUNCUS = _given["truncus"]
CHAOS = _given
LOGGING = {"version": 1, "disable_existing_loggers": False}
