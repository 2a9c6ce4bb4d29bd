"""The HTML preview of an email, in a frame that runs nothing and loads nothing."""

from django.http import Http404, HttpResponse

from truncus_django.html_preview import HEADERS, preview_page
from truncus_django.models import Email


def html_response(email: Email | None) -> HttpResponse:
    """Return the HTML preview of an email, under a policy that runs nothing and loads nothing.

    Raises:
        Http404: there is no such email, or its HTML was not stored.
    """
    if email is None or email.html_body is None:
        raise Http404
    return HttpResponse(preview_page(email.html_body), headers=HEADERS)
