"""The outbox, on every database; tests/chaos kills its workers."""
