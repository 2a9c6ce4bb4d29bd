"""What an answer can be besides a good one: cut short, or a reset connection."""

from werkzeug.wrappers import Response


class ResetConnection(Exception):
    """Nothing is answered; the connection is closed with a TCP RST."""


class TruncatedResponse(Response):
    """An answer of which half the body is sent, then the connection is closed."""
