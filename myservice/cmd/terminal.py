"""What a program writes to, and what may be wrong with it.

A terminal may know fewer characters than a text has; a pipe may have lost its
reader, a file its disk, and a process may have been given no file at all.
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


def prepare() -> None:
    """Make stdout and stderr something to write to, whatever the text is."""
    if sys.stdout is None:
        # Who asks for an answer, and closes the door, hears that it failed:
        # nothing can be written to what is opened to be read.
        sys.stdout = _null(os.O_RDONLY)
    if sys.stderr is None:
        sys.stderr = _null(os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        # Tests have others.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


def _null(flags: int) -> Any:
    return os.fdopen(os.open(os.devnull, flags), 'w')


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Write at the end of this block what is still to be written.

    :raises OSError: when it cannot be; Python would say so after the program
    """
    try:
        yield
    finally:
        sys.stdout.flush()


def tell(text: str) -> None:
    """Print a line on stderr, if there is somebody who reads it.

    :param text: the line
    """
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        discard(sys.stderr)


def discard(stream: Any) -> None:
    """Drop what is still to be written, and what will be.

    :param stream: stdout or stderr, which has failed
    """
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
        stream.flush()
