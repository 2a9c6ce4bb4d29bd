"""Which methods of which modules are previews."""

import pytest

from tests.previews.gallery import email_previews as gallery
from truncus_django.previews.discovery import AppPreviews, all_previews, find_preview
from truncus_django.previews.tracebacks import PreviewFailed


def apps() -> dict[str, AppPreviews]:
    return {app.label: app for app in all_previews()}


def test_public_methods_without_arguments_are_previews_in_their_order():
    assert gallery.names(gallery.OrderPreviews) == ["confirmation", "greeting", "with_default"]


def test_methods_of_a_base_class_are_previews_unless_they_are_taken_away():
    assert gallery.names(gallery.InheritingPreviews) == ["inherited"]


def test_classes_of_a_module_are_groups_in_their_order_without_private_and_imported_ones():
    groups = [one.group.__name__ for one in apps()["gallery"].groups]

    assert groups[:3] == ["OrderPreviews", "InheritingPreviews", "SendingPreviews"]
    assert not {"_Base", "EmailPreviews"} & set(groups)


def test_names_and_docstrings_become_words():
    group = apps()["gallery"].groups[0]
    preview = group.previews[0]

    assert (group.title, group.description) == ("Order", "What a customer hears of an order.")
    assert preview.title == "Confirmation"
    assert preview.path == "tests.previews.gallery.email_previews.OrderPreviews.confirmation"


def test_a_module_that_cannot_be_imported_costs_no_other_apps_previews(settings):
    settings.INSTALLED_APPS = ["tests.previews.broken", *settings.INSTALLED_APPS]

    assert "this module is broken" in apps()["broken"].traceback
    assert apps()["gallery"].groups
    with pytest.raises(PreviewFailed):
        find_preview("broken", "OrderPreviews", "confirmation")


def test_an_app_that_is_a_single_file_has_no_previews(settings):
    settings.INSTALLED_APPS = ["tests.servers", *settings.INSTALLED_APPS]

    assert "servers" not in apps()


@pytest.mark.parametrize(
    "names",
    [
        ("nowhere", "OrderPreviews", "confirmation"),
        ("gallery", "Nobody", "confirmation"),
        ("gallery", "_Base", "inherited"),
        ("gallery", "EmailPreviews", "_preview_names"),
        ("gallery", "OrderPreviews", "_helper"),
        ("gallery", "OrderPreviews", "with_argument"),
        ("gallery", "OrderPreviews", "address"),
        ("gallery", "OrderPreviews", "static"),
        ("gallery", "OrderPreviews", "__init__"),
        ("gallery", "message", "__call__"),
        ("auth", "OrderPreviews", "confirmation"),
    ],
)
def test_nothing_else_is_found(names):
    assert find_preview(*names) is None
