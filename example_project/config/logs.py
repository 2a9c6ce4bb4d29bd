"""Log lines that show the fields of the package, not only its texts."""

import logging


class FieldsFormatter(logging.Formatter):
    """Puts ``truncus_event=webhook_refused`` and the like behind the text of a line.

    A formatter that writes JSON shows them without this.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """Return the line, above a traceback."""
        fields = [
            f"{name}={value}"
            for name, value in vars(record).items()
            if name.startswith("truncus_") and value is not None
        ]
        return " ".join([super().formatMessage(record), *fields])
