"""The outbox, on every database; tests/outbox/chaos kills its workers."""
