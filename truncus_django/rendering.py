"""Templates of the project → an email's subject, text and HTML.

``orders/shipped`` stands for ``orders/shipped_subject.txt``, ``orders/shipped.html`` and
``orders/shipped.txt``. Where there is no text, inscriptis makes it from the HTML; it is optional:
``pip install "truncus-django[text]"``.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from datetime import tzinfo
from typing import Any
from weakref import WeakKeyDictionary

from django.conf import settings as django_settings
from django.http import HttpRequest
from django.template import TemplateDoesNotExist, engines
from django.template.backends.base import BaseEngine
from django.template.context import BaseContext
from django.template.loader import get_template
from django.utils import timezone, translation

from truncus_django.conf import ConfigurationError

_ENDINGS = {"subject": "_subject.txt", "html": ".html", "body": ".txt"}
_BACKENDS_THAT_ESCAPE = {"django.template.backends.django", "django.template.backends.jinja2"}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_LINK_THAT_IS_ITS_TEXT = re.compile(r"\[([^\[\]()\s]+)\]\((?:mailto:)?\1\)")


def render_email(
    name: str,
    context: Mapping[str, Any] | None,
    *,
    given: Collection[str] = (),
    language: str | None = None,
    time_zone: tzinfo | str | None = None,
    request: HttpRequest | None = None,
    using: str | None = None,
) -> dict[str, Any]:
    """Return ``subject``, ``html`` and ``body`` of an email: what there is a template for.

    Only the HTML is escaped. The subject is one line.

    Args:
        name: of the templates, without what they end in.
        given: which of the three are not asked for.
        language, time_zone: of the recipient; ``None`` leaves what is active.
        request: for context processors.
        using: ``NAME`` of the template engine; ``None`` asks each one in turn.

    Raises:
        TemplateDoesNotExist: there is no subject, or neither text nor HTML.
        ConfigurationError: there is no text, and inscriptis is not installed.
    """
    templates = _templates(name, given, using)
    if isinstance(context, BaseContext):
        context = context.flatten()
    with ExitStack() as stack:
        if language is not None:
            stack.enter_context(translation.override(language))
        if time_zone is not None:
            stack.enter_context(timezone.override(time_zone))
        rendered = {
            # A dict for each, because the backend of Jinja2 adds the request to it.
            part: template.render(dict(context or {}), request)
            for part, template in templates.items()
        }
    if "subject" in rendered:
        rendered["subject"] = " ".join(_CONTROL.sub(" ", rendered["subject"]).split())
    if "html" in rendered and "body" not in rendered and "body" not in given:
        rendered["body"] = _text_of(rendered["html"], name)
    return rendered


def _templates(name: str, given: Collection[str], using: str | None) -> dict[str, Any]:
    """Return the templates by what they are for."""
    found: dict[str, Any] = {}
    missing: dict[str, TemplateDoesNotExist] = {}
    for part, ending in _ENDINGS.items():
        if part not in given:
            try:
                find = get_template if part == "html" else _unescaping_template
                found[part] = find(name + ending, using)
            except TemplateDoesNotExist as exc:
                missing[part] = exc
    has_body = not {"html", "body"}.isdisjoint({*found, *given})
    lacking = [part for part in missing if part == "subject" or not has_body]
    if lacking:
        names = " and no ".join(name + _ENDINGS[part] for part in lacking)
        raise TemplateDoesNotExist(
            f"There is no {names}. An email needs a subject, from a template or as subject=…, and "
            "a template for its HTML or its text.",
            chain=[reason for part in lacking for reason in missing[part].chain],
        )
    return found


# Subject and text ---------------------------------------------------------------------------------
#
# Both engines that come with Django escape for HTML whatever a template is named, and both have
# the option autoescape, which is for the whole engine. So they have a twin without it.

_twins: WeakKeyDictionary[BaseEngine, BaseEngine] = WeakKeyDictionary()


def _unescaping_template(filename: str, using: str | None) -> Any:
    reasons = []
    for engine in _unescaping_engines(using):
        try:
            return engine.get_template(filename)
        except TemplateDoesNotExist as exc:
            reasons.append(exc)
    raise TemplateDoesNotExist(filename, chain=reasons)


def _unescaping_engines(using: str | None) -> Iterator[BaseEngine]:
    if using is not None:
        engines[using]  # raises, as Django does, where there is none
    configured: list[dict[str, Any]] = django_settings.TEMPLATES
    for config in configured:
        alias = config.get("NAME", config["BACKEND"].split(".")[-2])
        if using is None or using == alias:
            yield _twin(engines[alias], {"NAME": alias, **config})


def _twin(engine: BaseEngine, config: Mapping[str, Any]) -> BaseEngine:
    """Return an engine like this one that does not escape; another project's engine as it is.

    Tests that change the settings get engines of their own from Django, and so twins of these.
    """
    if _BACKENDS_THAT_ESCAPE.isdisjoint(base.__module__ for base in type(engine).__mro__):
        return engine
    twin = _twins.get(engine)
    if twin is None:
        parameters = {
            "NAME": config["NAME"],
            "DIRS": config.get("DIRS", []),
            "APP_DIRS": config.get("APP_DIRS", False),
            "OPTIONS": {**config.get("OPTIONS", {}), "autoescape": False},
        }
        twin = _twins[engine] = type(engine)(parameters)
    return twin


def _text_of(html: str, name: str) -> str:
    try:
        # Here, because inscriptis is optional.
        from inscriptis import get_text
        from inscriptis.model.config import ParserConfig
    except ImportError:
        raise ConfigurationError(
            f"There is no template {name}.txt, and inscriptis, which makes the text from the HTML, "
            'is not installed: write the template, run pip install "truncus-django[text]", or give '
            "body='' to send the HTML alone."
        ) from None
    text = get_text(html, ParserConfig(display_links=True, display_images=True))
    lines = (line.rstrip() for line in text.strip().split("\n"))
    return _LINK_THAT_IS_ITS_TEXT.sub(r"\1", "\n".join(lines))
