"""Who is in control: a thread, and the task of asyncio that it runs."""

import asyncio
import threading

from myservice import exception

#: a thread, and the task that it runs, if it does
Control = tuple[threading.Thread, asyncio.Task[object] | None]


def current() -> Control:
    """Return who runs this code."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.current_thread(), task


def in_use(owner: Control, caller: Control) -> exception.TransactionInUse:
    """Return the error that says that a transaction is somebody else's.

    :param owner: who may use it
    :param caller: who asked for it
    """
    return exception.TransactionInUse(owner=name(owner), caller=name(caller))


def name(who: Control) -> str:
    """Return what messages call them.

    :param who: a thread and its task
    """
    thread, task = who
    return f'thread {thread.name}' + (
        f', task {task.get_name()}' if task else ''
    )
