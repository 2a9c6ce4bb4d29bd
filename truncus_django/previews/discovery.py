"""Previews are found in each app's ``email_previews.py``, when a page is asked for."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from inspect import cleandoc

from django.apps import AppConfig, apps

from truncus_django.previews.base import EmailPreviews
from truncus_django.previews.tracebacks import PreviewFailed, failed

MODULE = "email_previews"
"""The module of an app that its previews are in."""


@dataclass(frozen=True, slots=True)
class Preview:
    """One email to look at: a method of a class in an app."""

    app_label: str
    group: type[EmailPreviews]
    name: str

    @property
    def group_name(self) -> str:
        """The name of the class."""
        return self.group.__name__

    @property
    def title(self) -> str:
        """The method's name in words."""
        return _capitalized(self.name.replace("_", " ").strip())

    @property
    def description(self) -> str:
        """The first paragraph of the method's docstring."""
        return _summary(getattr(self.group, self.name).__doc__)

    @property
    def path(self) -> str:
        """Where it is in the code."""
        return f"{self.group.__module__}.{self.group.__qualname__}.{self.name}"


@dataclass(frozen=True, slots=True)
class PreviewGroup:
    """The previews of one class."""

    group: type[EmailPreviews]
    previews: Sequence[Preview]

    @property
    def title(self) -> str:
        """The class's name in words, without “Previews”."""
        name = re.sub(r"_?(Email)?Previews?$", "", self.group.__name__) or self.group.__name__
        return _capitalized(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").lower())

    @property
    def description(self) -> str:
        """The first paragraph of the class's own docstring."""
        return _summary(self.group.__doc__)


@dataclass(frozen=True, slots=True)
class AppPreviews:
    """The previews of one app, or why there are none.

    Attributes:
        label, name: of the app; the name is the one that people read.
        groups: its classes with previews, as they stand in the module.
        traceback: what the module raised when it was imported, or empty.
    """

    label: str
    name: str
    groups: Sequence[PreviewGroup] = ()
    traceback: str = field(default="", repr=False)


def all_previews() -> Iterator[AppPreviews]:
    """Yield the previews of each app that has some, in the order of ``INSTALLED_APPS``.

    An app whose module cannot be imported is among them, with its traceback.
    """
    for app in apps.get_app_configs():
        try:
            groups = _groups(app)
        except PreviewFailed as failure:
            yield AppPreviews(app.label, str(app.verbose_name), traceback=failure.traceback)
        else:
            if groups:
                yield AppPreviews(app.label, str(app.verbose_name), groups)


def find_preview(app_label: str, group: str, name: str) -> Preview | None:
    """Return one preview by the names of app, class and method; ``None`` if there is none.

    Raises:
        PreviewFailed: the app's module cannot be imported.
    """
    try:
        app = apps.get_app_config(app_label)
    except LookupError:
        return None
    found = (
        preview
        for one in _groups(app)
        for preview in one.previews
        if (preview.group_name, preview.name) == (group, name)
    )
    return next(found, None)


def _groups(app: AppConfig) -> list[PreviewGroup]:
    path = f"{app.name}.{MODULE}"
    try:
        is_package = hasattr(app.module, "__path__")  # an app may be a single file
        if not is_package or find_spec(path) is None:
            return []
        module = import_module(path)
    except (Exception, SystemExit) as exc:  # noqa: BLE001  whatever it raises, the page shows it
        raise failed(exc, __file__) from None
    found = [
        PreviewGroup(one, [Preview(app.label, one, name) for name in one._preview_names()])
        for one in vars(module).values()
        if isinstance(one, type)
        and issubclass(one, EmailPreviews)
        and one.__module__ == path
        and not one.__name__.startswith("_")
    ]
    return [one for one in found if one.previews]


def _capitalized(words: str) -> str:
    return words[:1].upper() + words[1:]


def _summary(docstring: str | None) -> str:
    return " ".join(cleandoc(docstring or "").partition("\n\n")[0].split())
