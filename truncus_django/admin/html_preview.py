"""The HTML preview of an email, in a frame that runs nothing and loads nothing."""

from django.http import Http404, HttpResponse

from truncus_django.html_preview import POLICY, preview_page
from truncus_django.models import Email

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "X-DNS-Prefetch-Control": "off",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def framed_html(email: Email | None) -> HttpResponse:
    """Return the HTML preview of an email, under a policy that runs nothing and loads nothing.

    Raises:
        Http404: there is no such email, or its HTML was not stored.
    """
    if email is None or email.html_body is None:
        raise Http404
    response = HttpResponse(preview_page(email.html_body))
    for name, value in _HEADERS.items():
        response[name] = value
    return response
