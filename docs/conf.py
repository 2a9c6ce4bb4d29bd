"""How Sphinx builds the documentation; ``make docs`` runs it."""

import os

import django
from django.conf import settings
from django.core.management import get_commands, load_command_class
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from truncus_django import __version__

# The reference imports the package, and models need an app registry.
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "truncus_django",
    ]
)
django.setup()

project = "truncus-django"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signatures name internal types
# Django adds these to every model; its own documentation describes them.
autodoc_default_options = {"exclude-members": "DoesNotExist, MultipleObjectsReturned"}

html_theme = "furo"
html_title = f"truncus-django {release}"


class Command(SphinxDirective):
    """What ``manage.py`` prints for a command with ``--help``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the help as a literal block."""
        (name,) = self.arguments
        parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
        text = parser.format_help()
        return [nodes.literal_block(text, text, language="text")]


def setup(app: Sphinx) -> None:
    """Add what the pages use."""
    os.environ["COLUMNS"] = "100"  # the width of every --help
    app.add_directive("command", Command)
