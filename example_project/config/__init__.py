"""The project: settings, URLs and the WSGI application; Celery's app where Celery is installed."""

try:
    from config.celery import app as celery_app  # noqa: F401  which web server and worker find here
except ModuleNotFoundError as exc:
    if exc.name != "celery":
        raise
