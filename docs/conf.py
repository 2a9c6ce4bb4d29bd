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
autodoc_default_options = {"exclude-members": "DoesNotExist, MultipleObjectsReturned, NotUpdated"}

smartquotes_action = "D"  # dashes alone: --help quotes values

html_theme = "furo"
html_show_copyright = False
html_title = f"truncus-django {release}"


DJANGO_OPTIONS = {
    "--force-color",
    "--no-color",
    "--pythonpath",
    "--settings",
    "--traceback",
    "--verbosity",
    "--version",
}


class Command(SphinxDirective):
    """What a command of ``manage.py`` prints with ``--help``, without Django's own options."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a paragraph for each one, and a literal block for what is indented."""
        (name,) = self.arguments
        command = load_command_class(get_commands()[name], name)
        command.suppressed_base_arguments = DJANGO_OPTIONS
        blocks = command.create_parser("manage.py", name).format_help().strip().split("\n\n")
        return [
            nodes.literal_block(block, block, language="text")
            if "\n " in block or block.startswith("usage:")
            else nodes.paragraph(block, block)
            for block in blocks
        ]


def setup(app: Sphinx) -> None:
    """Add what the pages use."""
    os.environ["COLUMNS"] = "90"  # the width of every --help
    app.add_directive("command", Command)
