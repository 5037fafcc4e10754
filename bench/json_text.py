"""JSON as records have it: one text for equal content, lines that a diff can follow, finite numbers only."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np


def canonical(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def hash_of(content: Any) -> str:
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def pretty(value: Any, indent: str = "") -> str:
    """Write JSON that a reader and a diff can follow: one line per key, lists on one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, allow_nan=False)
    inner = indent + " "
    lines = [f"{inner}{json.dumps(key)}: {pretty(item, inner)}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def plain(value: Any) -> Any:
    """Turn numpy's numbers and arrays into JSON's, and what is not finite into null."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
