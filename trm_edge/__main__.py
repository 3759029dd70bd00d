"""``python -m trm_edge``: the command line, where its script is not on the PATH."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
