"""The part "start": how long the command line takes to say what it can do."""

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import bar

_MANAGE = 'from myservice.cmd.manage import main; main()'
_IMPORTS = 'import sqlalchemy.orm, oslo_db.sqlalchemy.enginefacade'


def commands() -> dict[str, list[str]]:
    """Return the commands, by what tables call them."""
    python = sys.executable
    script = pathlib.Path(python).with_name('myservice-manage')
    manage = [str(script)] if script.exists() else [python, '-c', _MANAGE]
    return {
        'myservice-manage --help': [*manage, '--help'],
        f"python -c '{_IMPORTS}'": [python, '-c', _IMPORTS],
        "python -c ''": [python, '-c', ''],
    }


def measure_start(repeats: int, shown: bar.Bar) -> list[dict[str, Any]]:
    """Return milliseconds of each command.

    :param repeats: how often each is started, in turns
    :param shown: the progress bar
    """
    times: dict[str, list[tuple[float, float]]] = {}
    for turn in shown.track(range(-1, repeats), 'start'):
        for name, command in commands().items():
            taken = _run(command)
            # The first one has filled the caches.
            if turn >= 0:
                times.setdefault(name, []).append(taken)
    return [
        {
            'command': name,
            'starts': len(taken),
            'cpu_ms': statistics.median(cpu for cpu, _ in taken),
            'wall_ms': statistics.median(wall for _, wall in taken),
            'cpu_ms_least': min(cpu for cpu, _ in taken),
            'wall_ms_least': min(wall for _, wall in taken),
        }
        for name, taken in times.items()
    ]


def _run(command: list[str]) -> tuple[float, float]:
    before = _cpu_of_children()
    started = time.perf_counter()
    subprocess.run(  # noqa: S603 - they stand above
        command,
        stdout=subprocess.DEVNULL,
        env=os.environ | {'PYTHONWARNINGS': 'ignore'},
        check=True,
    )
    wall = time.perf_counter() - started
    return (_cpu_of_children() - before) * 1000, wall * 1000


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
