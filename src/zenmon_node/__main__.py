"""``python -m zenmon_node`` is the command ``zenmon-node``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
