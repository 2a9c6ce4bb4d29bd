"""``python -m truncus_django.emulator``."""

import sys

from truncus_django.emulator.cli import main

if __name__ == "__main__":
    sys.exit(main())
