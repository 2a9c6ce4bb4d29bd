"""The Django email backend for Truncus.

Set ``EMAIL_BACKEND = "truncus_django.backend.TruncusBackend"`` and every email of a Django
project goes through the Truncus API.
"""

__version__ = "0.1.0"
