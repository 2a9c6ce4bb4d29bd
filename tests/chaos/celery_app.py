"""A Celery application of a project that sends from its outbox, as the documentation shows it."""

import json
import os

from celery import Celery

_given = json.loads(os.environ["CHAOS"])["celery"]

app = Celery("chaos", broker=_given["broker"])
app.conf.task_default_queue = _given["queue"]
if _given["broker"].startswith("redis"):
    # Other runs may use the same database of Redis.
    app.conf.broker_transport_options = {"global_keyprefix": f"{_given['queue']}:"}
app.conf.broker_connection_retry_on_startup = True
app.conf.worker_proc_alive_timeout = 60.0  # the machine may do other things, too
app.conf.beat_schedule = {
    "outbox": {"task": "truncus_django.dispatch", "schedule": 2.0},
}
app.autodiscover_tasks(["truncus_django"])
