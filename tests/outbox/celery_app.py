"""The Celery app of a site: ``celery -A tests.outbox.celery_app worker``."""

import json
import os
from typing import Any

from celery import Celery


def make_app(broker: dict[str, Any]) -> Celery:
    """Return an app with the settings of a test's broker, which whoever asks first gets."""
    app = Celery("site", set_as_current=True)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        worker_proc_alive_timeout=60.0,  # the machine may do other things, too
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        **broker,
    )
    return app


if "CELERY" in os.environ:
    app = make_app(json.loads(os.environ["CELERY"]))
    app.autodiscover_tasks()
