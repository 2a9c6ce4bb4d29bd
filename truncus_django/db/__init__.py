"""Everything that differs between databases.

To support another one, look here at every ``vendor``: in ``bulk``, ``clock``, ``days``, ``fields``,
``large_tables``, ``locks`` and ``transactions``. Elsewhere, the outbox's ``listener`` needs
PostgreSQL's ``LISTEN``, and ``checks`` looks for SQLite's ``transaction_mode``. Tests run on a
database that ``tests/databases.py`` describes.
"""
