"""How much waits in the outbox, and since when."""
