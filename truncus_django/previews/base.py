"""What an app's ``email_previews.py`` is written with."""

import inspect
from typing import ClassVar


class EmailPreviews:
    """Emails to look at: each public method without arguments returns one, made of example data.

    A method returns an ``EmailMessage``. It may also call code that sends one through Truncus:
    the email is shown and not sent. What it writes into databases is undone. A method with
    arguments, or whose name begins with an underscore, is no preview, but may help one.
    """

    is_bulk: ClassVar[bool] = False
    """Whether these emails go to many, such as a newsletter. Each then needs a header
    ``List-Unsubscribe``, and the page warns of one that has none."""

    @classmethod
    def _preview_names(cls) -> list[str]:
        """Return the names of the methods that are previews, as they stand in the code."""
        own = [one for one in reversed(cls.__mro__) if one not in {object, EmailPreviews}]
        public = dict.fromkeys(name for one in own for name in vars(one) if name[0] != "_")
        return [name for name in public if _is_preview(inspect.getattr_static(cls, name))]


def _is_preview(attribute: object) -> bool:
    if not inspect.isfunction(attribute):
        return False
    _, *others = inspect.signature(attribute).parameters.values()
    required = inspect.Parameter.empty
    return all(
        parameter.default is not required or parameter.kind in _VARIADIC for parameter in others
    )


_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
