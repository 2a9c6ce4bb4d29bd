"""The outbox: emails become part of the caller's transaction, and are sent elsewhere.

``enqueue``   messages → rows, in the caller's transaction; no request
``claim``     rows → one request, fixed and leased, when the account's limits let it go
``dispatch``  claim → request → settle: the steps of one delivery
``settle``    what came back → rows
``policy``    when to try again, or never: pure
``pace``      the account's limits and pauses, shared by all workers through the database
``clock``     the database's clock, which all machines share
``commit``    transactions that are surely committed, and that nobody holds for long
``waiting``   what waits, looked at without reading it all
``wake``      tells workers that there is work; losing it costs a delay, never an email
``worker``    the long-running loop of ``manage.py truncus_worker``
``hands``     what a person does: retry, cancel, decide
``health``    how much waits, and since when

Whatever dies, wherever: an email's row is in one of few places, and each says what is next. It
waits; or it belongs to a batch whose key, members and order were written before its first request,
so that whoever finds the batch makes that same request again; or it is done.
"""
