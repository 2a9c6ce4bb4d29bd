"""The Celery app, for who sends emails by Celery: ``celery -A config worker --beat``."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()  # finds truncus_django.tasks
app.conf.beat_schedule = {
    # A worker is notified of emails when they are committed. This is for what gets lost: a
    # broker that was gone, a worker that was killed.
    "truncus-outbox": {
        "task": "truncus_django.dispatch",
        "schedule": 60.0,
        "options": {"expires": 55.0},
    },
}
