"""The Django e-mail backend for Truncus.

Set ``EMAIL_BACKEND = "truncus_django.backend.TruncusBackend"`` and every e-mail of a Django
project goes through the Truncus API.
"""

__version__ = "0.1.0"
