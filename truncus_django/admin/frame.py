"""An e-mail's HTML, for a frame in which nothing runs and into which nothing is loaded."""

import re

from django.http import Http404, HttpResponse

from truncus_django.models import Email

POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "X-DNS-Prefetch-Control": "off",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# No policy keeps <link rel="preconnect"> from connecting to another server. What these elements
# are good for, the policy forbids; under another name they are nothing. The name of an element
# ends just so in the HTML standard.
_REACHING_OUT = re.compile(r"<(?=(?:link|meta|iframe)[\t\n\f\r />])", re.IGNORECASE)
# The page's policy keeps the frame where it is, but the mouse on a link is enough to connect.
_LINK = re.compile(r"<(a|area)(?=[\t\n\f\r />])", re.IGNORECASE)


def framed_html(email: Email | None) -> HttpResponse:
    """Return an e-mail's HTML under a policy that runs nothing and loads nothing.

    Raises:
        Http404: there is no such e-mail, or its HTML was not kept.
    """
    if email is None or email.html_body is None:
        raise Http404
    html = _LINK.sub(r"<\1 inert", _REACHING_OUT.sub("<x-", email.html_body))
    response = HttpResponse(html.encode("utf-8", "replace"), charset="utf-8")
    for name, value in _HEADERS.items():
        response[name] = value
    return response
