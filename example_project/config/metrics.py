"""The page that Prometheus asks; urls.py has it where the extra ``prometheus`` is installed.

This is for a site with one process. For one with several see docs/monitoring.md.
"""

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from truncus_django.metrics.prometheus import TruncusCollector

REGISTRY.register(TruncusCollector())


def metrics(request: HttpRequest) -> HttpResponse:
    """Return all metrics to whoever brings the token of the health endpoint."""
    token = settings.TRUNCUS["HEALTH_TOKEN"]
    given = request.headers.get("Authorization", "")
    if not token or not constant_time_compare(given, f"Bearer {token}"):
        raise PermissionDenied
    return HttpResponse(generate_latest(), content_type=CONTENT_TYPE_LATEST)
