"""Errors for users, one line each, and how errors become part of a record."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

_T = TypeVar("_T")


def printable(text: str) -> str:
    """Escape bytes of a file name that are not UTF-8, so that any terminal and file takes them."""
    return text.encode("utf-8", "backslashreplace").decode()


class BenchError(Exception):
    """A mistake that the user can correct; its message is one line with file, key and remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def reason_of(error: Exception) -> str:
    """Return an error's message, as records have it."""
    return str(error) if isinstance(error, BenchError) else printable(f"{type(error).__name__}: {error}")


def traceback_of(error: Exception) -> str:
    """Return an error's traceback, as records have it: without the paths of this machine."""
    text = printable("".join(traceback.format_exception(error)))
    ours = r"(?:bench|methods|site-packages|lib)/"
    return re.sub(rf'File "(?:(?:[^"]*/)?(?={ours})|[^"]*/)', 'File "', text)


def location_of(traceback: str | None) -> str:
    """Return where a recorded traceback ends, as "my_method.py:15, loss = 1 / 0", or "" for a user's mistake.

    The innermost frame of a user's file is taken, else of this package, else of a library.
    """
    if not traceback or "bench.errors." in traceback.rstrip().rpartition("\n")[2]:
        return ""  # a user's mistake, whose message has the location
    frames = re.findall(r'^ *File "(.*?)", line (\d+), in .*\n(?: +(?!File )(.*))?', traceback, re.MULTILINE)
    own = [frame for frame in frames if not re.match(r"(site-packages|lib|<)", frame[0])]
    theirs = [frame for frame in own if not frame[0].startswith("bench/")]
    if not (chosen := theirs or own or frames):
        return ""
    file, line, code = chosen[-1]
    return f"{file}:{line}" + (f", {code.strip()}" if code.strip() else "")


def memory_ran_out(error: BaseException | None) -> bool:
    """Return whether an error, or a cause of it, is a GPU out of memory, whichever library raised it."""
    while error is not None:
        text = f"{type(error).__name__}: {error}"
        if any(words in text for words in ("OutOfMemoryError", "out of memory", "ALLOC_FAILED")):
            return True
        error = error.__cause__ or error.__context__
    return False


#: Longer lists are left out of a message.
MOST_LISTED = 60


def first_of(things: Sequence[_T], most: int = 5, name: Callable[[_T], str] = str) -> str:
    """Write the names of the first things, and how many more there are."""
    more = f" and {len(things) - most:,} more" if len(things) > most else ""
    return ", ".join(map(name, things[:most])) + more


def did_you_mean(name: object, known: Iterable[str], most: int = MOST_LISTED) -> str:
    """Return ``; did you mean 'x'?``, or all known names where none is near and they are at most `most`."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name)[:80], names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(names)}" if 0 < len(names) <= most else ""
