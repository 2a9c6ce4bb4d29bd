"""Pages of previews, and who looks at them."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.log.conftest import other_database

__all__ = ["other_database"]

LIST = "/emails/"


@pytest.fixture(autouse=True)
def gallery(settings: Any) -> None:
    """A project with previews in an app, in development."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.previews.gallery"]
    settings.DEBUG = True


@pytest.fixture
def shown(client: Client) -> Callable[..., str]:
    """Return a function that opens a preview and returns the page."""

    def open_page(name: str, query: str = "") -> str:
        response = client.get(f"{LIST}gallery/{name}/{query}")
        assert response.status_code == 200
        return response.content.decode()

    return open_page


@pytest.fixture
def staff(client: Client) -> User:
    """Somebody who may see the admin, signed in."""
    user = User.objects.create_user("mira", "mira@example.com", is_staff=True)
    client.force_login(user)
    return user
