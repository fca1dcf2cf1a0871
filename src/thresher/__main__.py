"""``python -m thresher`` and ``torchrun -m thresher``."""

import sys

from thresher.cli import main

sys.exit(main())
