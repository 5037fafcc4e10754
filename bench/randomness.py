"""Random generators as pure functions of named streams.

A draw depends only on the names of its stream (seed, epoch, ...). So it is the same on CPU and GPU, eager and
captured, resumed or not, in one process or several, and no random state is ever saved.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(*names: object) -> int:
    """Hash the names of a stream to a 63-bit seed."""
    key = "/".join(str(name) for name in names)
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def generator(*names: object) -> np.random.Generator:
    """Return the generator of a stream, e.g. ``generator("order", seed, epoch)``."""
    return np.random.default_rng(seed_of(*names))
