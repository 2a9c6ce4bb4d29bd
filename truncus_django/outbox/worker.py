"""The long-running loop: sends what is in the outbox until it is told to stop."""
