"""How the command line is built: groups, and their commands."""

import argparse
from collections.abc import Callable
from typing import Any

CODES = (
    'Exit codes: 0 done; 1 refused, or the answer is no; 2 the command line, '
    'the configuration or the database is at fault, or the answer cannot be '
    'written; 130 interrupted; 141 nobody reads the answer.'
)


def add_group(groups: Any, name: str, summary: str) -> Any:
    """Add a group of commands.

    :param groups: the groups of the program
    :param name: what operators type
    :param summary: the help of the group
    :returns: the group, for add_command
    """
    group = groups.add_parser(name, help=summary, epilog=CODES)
    return group.add_subparsers(
        title='commands', metavar='COMMAND', required=True
    )


def add_command(
    group: Any, name: str, function: Callable[[Any], int | None]
) -> argparse.ArgumentParser:
    """Add a command to a group.

    :param group: the group that add_group returned
    :param name: what operators type
    :param function: called with the arguments; returns the exit code, None
        for 0. Its docstring is the help
    :returns: the parser of its arguments
    """
    parser: argparse.ArgumentParser = group.add_parser(
        name,
        help=function.__doc__,
        description=function.__doc__,
        epilog=CODES,
    )
    parser.set_defaults(function=function)
    parser.add_argument('--json', action='store_true', help='answer as JSON')
    return parser
