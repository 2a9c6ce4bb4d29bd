"""The preview that comes along: Django's own password reset, as the project has it configured."""

from typing import Any, ClassVar

import pytest
from django.contrib import admin
from django.contrib.auth import views
from django.contrib.auth.models import User
from django.urls import include, path
from django.utils.html import strip_tags

from tests.previews.conftest import LIST

pytestmark = pytest.mark.django_db

PREVIEW = f"{LIST}truncus_django/DjangoPreviews/password_reset/"
TEMPLATES = {
    "subject.txt": "{{ shop }}:\na new password",
    "body.txt": "{{ user.first_name }} at {{ protocol }}://{{ domain }}",
    "body.html": "<p>{% url 'password_reset_confirm' uidb64=uid token=token %}</p>",
}
urlpatterns = [
    path("emails/", include("truncus_django.previews.urls")),
    path("admin/", admin.site.urls),  # whose templates they are
    path("", include("django.contrib.auth.urls")),
]


class ConfiguredUrls:
    """The URLs of a project with templates of its own."""

    urlpatterns: ClassVar = [
        *urlpatterns,
        path(
            "forgotten/",
            views.PasswordResetView.as_view(
                subject_template_name="subject.txt",
                email_template_name="body.txt",
                html_email_template_name="body.html",
                extra_email_context={"shop": "Tea"},
                from_email="help@example.com",
            ),
            name="password_reset",
        ),
    ]


@pytest.fixture
def configured(settings: Any) -> None:
    [engine] = settings.TEMPLATES
    loaders = [
        ("django.template.loaders.locmem.Loader", TEMPLATES),
        "django.template.loaders.app_directories.Loader",
    ]
    options = {**engine["OPTIONS"], "loaders": loaders}
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": options}]
    settings.ROOT_URLCONF = ConfiguredUrls


def test_it_is_shown_with_djangos_templates(client, settings, truncus):
    settings.ROOT_URLCONF = __name__

    assert PREVIEW in client.get(LIST).content.decode()
    page = client.get(f"{PREVIEW}?language=de").content.decode()
    assert "Das Team von example.com" in page
    assert "https://example.com/reset/" in page
    assert User.objects.count() == 0
    assert truncus.seen == []


def test_it_is_shown_with_the_templates_and_options_of_the_project(client, configured):
    page = client.get(PREVIEW).content.decode()

    assert "<bdi>Tea:a new password</bdi>" in page
    assert "Ada at https://example.com" in strip_tags(page)
    assert "help@example.com" in page
    assert "&lt;p&gt;/reset/" in page


def test_its_link_is_of_no_use(client, settings):
    """Nobody has the password that its token is made of."""
    settings.ROOT_URLCONF = __name__
    User.objects.create_user("ada", "ada@example.com", "secret")
    page = client.get(PREVIEW).content.decode()
    link = page.split('href="https://example.com')[1].split('"')[0]

    opened = client.get(link, follow=True)
    assert opened.status_code == 200
    assert opened.context["validlink"] is False


def test_it_is_not_there_where_nobody_can_forget_a_password(client):
    assert PREVIEW not in client.get(LIST).content.decode()
    assert client.get(PREVIEW).status_code == 404
