"""What a user's mistake looks like: one line that names the place and the remedy."""

from __future__ import annotations

import difflib
import re
import traceback
from collections.abc import Iterable


def printable(text: str) -> str:
    """Write bytes of a file's name that are no UTF-8 as escapes, which any terminal and file takes."""
    return text.encode("utf-8", "backslashreplace").decode()


class BenchError(Exception):
    """A mistake the user can mend; its message is one line naming file, key and remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def reason_of(error: Exception) -> str:
    """Say what went wrong, as a record does."""
    return str(error) if isinstance(error, BenchError) else printable(f"{type(error).__name__}: {error}")


def traceback_of(error: Exception) -> str:
    """Return an error's traceback as a record has it: its paths tell nothing of this machine."""
    told = printable("".join(traceback.format_exception(error)))
    ours = r"(?:bench|methods|site-packages|lib)/"
    return re.sub(rf'File "(?:(?:[^"]*/)?(?={ours})|[^"]*/)', 'File "', told)


def place_of(told: str | None) -> str:
    """Say where a traceback of a record leads to: "my_method.py:15, loss = 1 / 0"; "" if nowhere of interest.

    The innermost frame that is no library's is taken, and of our own only where there is none of a user's.
    """
    if not told or "bench.errors." in told.rstrip().rpartition("\n")[2]:
        return ""  # a user's mistake, whose message names the place that counts
    frames = re.findall(r'^ *File "(.*?)", line (\d+), in .*\n(?: +(?!File )(.*))?', told, re.MULTILINE)
    own = [frame for frame in frames if not re.match(r"(site-packages|lib|<)", frame[0])]
    theirs = [frame for frame in own if not frame[0].startswith("bench/")]
    if not (chosen := theirs or own or frames):
        return ""
    file, line, code = chosen[-1]
    return f"{file}:{line}" + (f", {code.strip()}" if code.strip() else "")


def memory_ran_out(error: BaseException | None) -> bool:
    """Tell whether an error, or one behind it, is a GPU's memory running out, whichever library says so."""
    while error is not None:
        told = f"{type(error).__name__}: {error}"
        if any(words in told for words in ("OutOfMemoryError", "out of memory", "ALLOC_FAILED")):
            return True
        error = error.__cause__ or error.__context__
    return False


#: A longer list is no help in one line.
MOST_LISTED = 60


def did_you_mean(name: object, known: Iterable[str], most: int = MOST_LISTED) -> str:
    """Return ``; did you mean 'x'?``, or, where nothing is near, what there is, if that is not too much."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name)[:80], names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(names)}" if 0 < len(names) <= most else ""
