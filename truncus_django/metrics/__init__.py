"""Metrics that are read from the log and the outbox, whenever somebody asks.

``truncus_django.metrics.prometheus`` and ``truncus_django.metrics.otel`` need the extra of their
name. What a process measures as it goes is in :mod:`truncus_django.telemetry`.
"""
