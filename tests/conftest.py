"""One thread per test process, as in a run: set before torch is imported anywhere."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
