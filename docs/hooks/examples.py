"""Examples of docstrings (`>>>` and what they print, up to an empty line) as code in the Python reference."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^>>> .*(?:\n\S.*)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Fences the examples of each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of what was loaded."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
