"""A small tea shop that sends the mails every shop sends."""
