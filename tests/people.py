"""Somebody who signs in to the admin, for the tests of its pages."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client


@pytest.fixture
def may(client: Client) -> Callable[..., Client]:
    """Return a function that signs in somebody with these permissions, and no others."""

    def sign_in(*codenames: str) -> Client:
        user = User.objects.create_user("clerk", is_staff=True)
        permissions = Permission.objects.filter(codename__in=codenames)
        assert len(permissions) == len(codenames)
        user.user_permissions.set(permissions)
        client.force_login(user)
        return client

    return sign_in
