"""What a person does with e-mails of the outbox: retry, cancel, decide."""
