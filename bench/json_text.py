"""JSON of records: equal content gives equal text, lines suit a diff, numbers are finite."""

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
    """Return JSON with a line for each key; a list stays on one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, allow_nan=False)
    inner = indent + " "
    lines = [f"{inner}{json.dumps(key)}: {pretty(item, inner)}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def plain(value: Any) -> Any:
    """Turn numpy's numbers and arrays into Python's, and numbers that are not finite into None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
