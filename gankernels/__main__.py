"""``python -m gankernels``: see ``python -m gankernels --help``."""

import sys

from gankernels.training.cli import main

sys.exit(main())
