"""Where coverage must not look."""

import sys


def stop() -> None:
    """Let nothing be traced in this thread any more.

    Coverage holds a lock in each call that it traces: a thread that is
    interrupted there leaves it held. And while an exception is on its way to
    one thread, CPython 3.11 keeps another one that is traced at the entry of
    a function for ever (DO_TRACING looks at the eval breaker again and again).
    """
    sys.settrace(None)
