"""The directive ``command-line``: a program, described by its own parser.

``.. command-line:: myservice.cmd.manage`` gives each group of commands and
each command a section, with its usage and its arguments.
"""

import argparse
import contextlib
import importlib
import re
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from unittest import mock

from docutils import nodes
from docutils import statemachine
from docutils.parsers import rst
from sphinx.util import nodes as sphinx_nodes

_UNDERLINES = '=-~'
_MARKUP = re.compile(r'([\\*`|_])')


def parser_of(main: Callable[[list[str]], int]) -> argparse.ArgumentParser:
    """Return the parser of a program.

    :param main: the program
    """
    found: list[argparse.ArgumentParser] = []

    def print_help(parser: argparse.ArgumentParser, file: Any = None) -> None:
        found.append(parser)

    with (
        mock.patch.object(argparse.ArgumentParser, 'print_help', print_help),
        contextlib.suppress(SystemExit),
    ):
        main(['--help'])
    return found[0]


def describe(parser: argparse.ArgumentParser, depth: int = 0) -> Iterator[str]:
    """Return the lines that describe a parser, and those of its commands.

    :param parser: the parser
    :param depth: 0 for a program, which has its title already
    """
    if depth:
        yield from (parser.prog, _UNDERLINES[depth] * len(parser.prog), '')
    yield from (_escaped(parser.description or ''), '')
    yield from ('.. code-block:: text', '')
    yield from (f'   {line}' for line in parser.format_usage().splitlines())
    yield from ('', f'.. program:: {parser.prog}', '')
    for action in parser._actions:
        if not isinstance(
            action, argparse._SubParsersAction | argparse._HelpAction
        ):
            yield from _argument(action)
    for command in _commands(parser):
        yield from describe(command, depth + 1)


def _argument(action: argparse.Action) -> Iterator[str]:
    if action.help is None:
        raise ValueError(f'{action.dest} has no help')
    text = argparse.HelpFormatter('')._expand_help(action)
    value = '' if action.nargs == 0 else f' {_value(action)}'
    names = [f'{name}{value}' for name in action.option_strings]
    yield f'.. option:: {", ".join(names) or _value(action)}'
    yield from ('', f'   {_escaped(text)}', '')


def _escaped(text: str) -> str:
    return _MARKUP.sub(r'\\\1', text)


def _value(action: argparse.Action) -> str:
    default = action.dest.upper() if action.option_strings else action.dest
    return str(action.metavar or default)


def _commands(
    parser: argparse.ArgumentParser,
) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


class CommandLine(rst.Directive):
    """The directive."""

    required_arguments = 1

    def run(self) -> list[Any]:
        """Return the sections of a program."""
        (name,) = self.arguments
        main = importlib.import_module(name).main
        lines = statemachine.StringList(
            list(describe(parser_of(main))), source=name
        )
        node = nodes.section()
        node.document = self.state.document
        sphinx_nodes.nested_parse_with_titles(self.state, lines, node)
        return node.children


def setup(app: Any) -> dict[str, bool]:
    """Extend Sphinx."""
    app.add_directive('command-line', CommandLine)
    return {'parallel_read_safe': True}
