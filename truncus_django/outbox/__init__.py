"""The outbox: emails become part of the caller's transaction, and are sent elsewhere.

``enqueue``         messages → rows, in the caller's transaction; no request
``claim``           rows → one request, fixed and leased, when the account's limits allow it
``batching``        which emails share a request: pure
``dispatcher``      claim → send → record the outcome: the steps that every kind of worker takes
``handover``        emails → the fallback mailer, one by one, while the account is paused
``reserve``         what is kept of the monthly quota for urgent emails
``answers``         what an answer means for the emails of its request, and for the account
``retry_policy``    when to try again, or never: pure
``outcomes``        what became of emails → rows
``expiry``          emails that are not sent in time
``stored_payload``  emails as the database stores them, and reading them
``clock_set_back``  the outbox's own times, where a clock was set back
``waiting``         what waits, looked at without reading it all
``notify``          tells workers that there is work; losing it costs a delay, never an email
``listener``        PostgreSQL's LISTEN and NOTIFY
``worker``          the long-running loop of ``manage.py truncus_worker``
``operations``      what a person does: retry, cancel, decide, resume
``health``          how much waits, and since when

The account's limits and pauses, shared by all workers through the database, are in
:mod:`truncus_django.rate_limit`; :mod:`truncus_django.queues` has Celery and Django Tasks, imported
where ``DISPATCHER`` names them.

If a process dies at any point, an email's row says what is next. It waits; or it belongs to a
batch whose key, members and order were written before its first request, so that whoever finds the
batch makes the same request again; or it is finished.
"""
