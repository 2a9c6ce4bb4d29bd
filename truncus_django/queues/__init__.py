"""The task queues, one module each: ``notify()`` queues the task that sends what is in the outbox.

They are imported when ``DISPATCHER`` names them, so that nobody else needs Celery.
"""
