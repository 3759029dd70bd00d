"""``python -m trm_edge``: the command line, where its script is not on the PATH."""

import sys

from .cli import main

sys.exit(main())
