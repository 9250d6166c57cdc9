"""The streams that a program writes to, and what may be wrong with them.

A terminal may not have all characters of a text. The reader of a pipe may have
gone, a disk may be full, and a process may have no stdout at all.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


def prepare() -> None:
    """Make stdout and stderr writable, for any text."""
    if sys.stdout is None:
        # A file opened for reading: to write the answer fails, and the exit
        # code says so.
        sys.stdout = _null(os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = _null(os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        # Tests replace the streams by others.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


def _null(flags: int) -> Any:
    return os.fdopen(os.open(os.devnull, flags), 'w')


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Flush stdout at the end of this block.

    :raises OSError: when that fails; Python would only report it at exit
    """
    try:
        yield
    finally:
        sys.stdout.flush()


def tell(text: str) -> None:
    """Print a line on stderr, if anybody can read it.

    :param text: the line
    """
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: Any) -> None:
    """Drop what is buffered, and all that is written later.

    :param stream: stdout or stderr, which has failed
    """
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()
