"""The pages of the previews: the list, one email, and its HTML for a sandboxed frame."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render as render_page
from django.utils import translation
from django.utils.safestring import mark_safe
from django.utils.translation import get_language
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from truncus_django.conf import get_settings
from truncus_django.html_preview import LINKS_HEADERS, LINKS_SANDBOX, preview_page
from truncus_django.links import linked_text
from truncus_django.previews.discovery import Preview, all_previews, find_preview
from truncus_django.previews.rendering import render
from truncus_django.previews.send_me import send_to
from truncus_django.previews.tracebacks import PreviewFailed

_View = Callable[..., HttpResponse]


def _for_developers(view: _View) -> _View:
    """Answer 404, as if there were no such page, to all who may not see previews."""

    @login_not_required  # to be sent to a log-in would tell that there is something
    @csrf_exempt  # for the same reason; the view inside is protected
    @wraps(view)
    def checked(request: HttpRequest, **names: str) -> HttpResponse:
        if not _may_see(request):
            raise Http404
        response = csrf_protect(view)(request, **names)
        response["Cache-Control"] = "no-store"  # emails hold reset links
        response["X-DNS-Prefetch-Control"] = "off"  # else hosts of links are looked up
        return response

    return checked


def _may_see(request: HttpRequest) -> bool:
    if django_settings.DEBUG:
        return True
    user: Any = getattr(request, "user", None)  # there may be no users
    is_staff = bool(getattr(user, "is_active", False) and getattr(user, "is_staff", False))
    return is_staff and get_settings().previews_for_staff


@_for_developers
@require_safe
def preview_list(request: HttpRequest) -> HttpResponse:
    """Show the previews of all apps."""
    context = {"apps": list(all_previews())}
    return render_page(request, "truncus_django/previews/list.html", context)


@_for_developers
@require_http_methods(["GET", "HEAD", "POST"])
def preview_detail(request: HttpRequest, app: str, group: str, name: str) -> HttpResponse:
    """Show one email, or why there is none; with POST, send it to who looks at it."""
    languages = _languages()
    language = _chosen(request, languages)
    address = _address_of(request)
    context: dict[str, Any] = {
        "app": app,
        "group": group,
        "name": name,
        "languages": languages,
        "language": language,
        "address": address,
        "frame_sandbox": LINKS_SANDBOX,
    }
    try:
        context["preview"] = preview = _find(app, group, name)
        context["email"] = email = render(preview, language)
        context["linked_text"] = mark_safe(linked_text(email.text))  # noqa: S308 - it escapes
        if request.method == "POST" and address:
            with translation.override(language):
                context["trial"] = send_to(email.message, address)
    except PreviewFailed as failure:
        context["traceback"] = failure.traceback
    return render_page(request, "truncus_django/previews/detail.html", context)


@_for_developers
@require_safe
def preview_html(request: HttpRequest, app: str, group: str, name: str) -> HttpResponse:
    """Return an email's HTML, for the sandboxed frames on its page."""
    language = _chosen(request, _languages())
    try:
        html = render(_find(app, group, name), language).html
    except PreviewFailed:
        raise Http404 from None  # its page shows the traceback, and no frame
    if not html:
        raise Http404
    return HttpResponse(preview_page(html, links=True), headers=LINKS_HEADERS)


def _find(app: str, group: str, name: str) -> Preview:
    preview = find_preview(app, group, name)
    if preview is None:
        raise Http404
    return preview


def _languages() -> Mapping[str, str]:
    """Return the names of the languages that previews can be shown in, by their codes."""
    offered = {code: str(name) for code, name in django_settings.LANGUAGES}
    own = get_language() or django_settings.LANGUAGE_CODE
    if not django_settings.USE_I18N:
        return {own: own}
    return offered if own in offered else {own: own, **offered}


def _chosen(request: HttpRequest, languages: Mapping[str, str]) -> str:
    chosen = request.GET.get("language")
    if chosen is None:
        return get_language() or django_settings.LANGUAGE_CODE
    if chosen not in languages:
        raise Http404
    return chosen


def _address_of(request: HttpRequest) -> str:
    """Return the address of who looks at the page; empty where there is none."""
    user: Any = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return ""
    return str(getattr(user, user.get_email_field_name(), None) or "")
