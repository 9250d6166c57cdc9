"""How programs answer: a table for people, JSON for scripts.

Only the functions that draw import rich, so that JSON and --help need not wait
for it.
"""

import datetime
import json
import sys
from collections.abc import Iterable
from typing import Any


def result(arguments: Any, **fields: Any) -> None:
    """Answer with fields and their values.

    :param arguments: those of the command; they say whether JSON is wanted
    :param fields: the answer
    """
    if arguments.json:
        print_json(fields)
    else:
        print_table(('Field', 'Value'), fields.items())


def print_json(answer: Any) -> None:
    """Print an answer as JSON.

    :param answer: values that JSON has, and times
    """
    print(json.dumps(answer, indent=2, default=_to_json))


def print_table(headings: Iterable[str], rows: Iterable[Any]) -> None:
    """Print an answer as a table; None is shown as a dash.

    :param headings: the headings of the columns
    :param rows: each an iterable of cells
    """
    from rich import console
    from rich import table

    # A pipe has no width; at eighty columns a script would find cut texts.
    screen = console.Console(
        highlight=False,
        markup=False,
        emoji=False,
        width=None if sys.stdout.isatty() else 1000,
    )
    grid = table.Table()
    for heading in headings:
        grid.add_column(heading, overflow='fold')
    for row in rows:
        grid.add_row(*map(_in_a_cell, row))
    with screen.capture() as drawn:
        screen.print(grid)
    # rich has its own way to print characters that the terminal lacks.
    print(drawn.get(), end='')


def printable(text: str) -> str:
    """Return a text that a terminal shows, without control characters.

    :param text: the text, which a user may have written
    """
    return ''.join(
        character if character.isprintable() else repr(character)[1:-1]
        for character in text
    )


def _in_a_cell(value: Any) -> str:
    return '-' if value is None else printable(str(value))


def _to_json(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    raise TypeError(f'{value!r} cannot be written as JSON')
