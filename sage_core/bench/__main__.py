"""`python -m sage_core.bench`."""

from __future__ import annotations

import sys

from .run import BENCH

if __name__ == "__main__":
    sys.exit(BENCH.run())
