"""`python -m sage_core.bench`."""

from __future__ import annotations

import sys

from .compare import disagreements
from .run import main

if __name__ == "__main__":
    sys.exit(1 if disagreements(main()) else 0)
