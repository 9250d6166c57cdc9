"""Prints figures of the code: sizes, imports, docstrings, types.

In a checkout::

    python tools/structure.py            # tables
    python tools/structure.py --json     # the same, to compare two states

A room is a folder of myservice/db. An import is counted once for each pair of
modules; it is between two rooms, or inside of one. Functions are measured
without their docstring.
"""

import argparse
import ast
import collections
import itertools
import json
import pathlib
import statistics
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DEFINITIONS = (*_FUNCTIONS, ast.ClassDef)


def areas(root: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Return the files of each examined part of the code.

    :param root: the root of a checkout
    """
    package = root / 'myservice'
    files = sorted(package.rglob('*.py'))
    tests = [path for path in files if package / 'tests' in path.parents]
    product = [path for path in files if path not in tests]
    return {
        'myservice': product,
        'myservice/db': [p for p in product if package / 'db' in p.parents],
        'myservice/tests': tests,
    }


def sizes(files: list[pathlib.Path], root: pathlib.Path) -> dict[str, Any]:
    """Return the figures of some files.

    :param files: the files
    :param root: the root of the checkout
    """
    texts = {path: path.read_text() for path in files}
    trees = [ast.parse(text) for text in texts.values()]
    lines = {path: text.count('\n') for path, text in texts.items()}
    longest = max(lines, key=lambda path: lines[path])
    lengths = [length for tree in trees for length in _lengths(tree)] or [0]
    public = [node for tree in trees for node in (tree, *_public(tree))]
    return {
        'files': len(files),
        'lines': sum(lines.values()),
        'longest file': f'{longest.relative_to(root)}, {lines[longest]} lines',
        'functions': sum(map(bool, lengths)),
        'median length of a function': statistics.median(lengths),
        '90th percentile of it': _percentile(lengths, 90),
        'public modules, classes, functions': len(public),
        'of them with a docstring': sum(
            ast.get_docstring(node) is not None for node in public
        ),
        'annotations with Any': sum(map(_count_any, trees)),
    }


def _percentile(numbers: list[int], percent: int) -> int:
    # The number that this part of the values does not exceed.
    return sorted(numbers)[-(-len(numbers) * percent // 100) - 1]


def _lengths(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS):
            length = (node.end_lineno or 0) - node.lineno + 1
            if ast.get_docstring(node) is not None:
                text = node.body[0]
                length -= (text.end_lineno or 0) - text.lineno + 1
            yield length


def _public(node: ast.Module | ast.ClassDef) -> Iterator[Any]:
    """Return the functions and classes with public names, in classes too."""
    for child in node.body:
        if isinstance(child, _DEFINITIONS) and not child.name.startswith('_'):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from _public(child)


def _count_any(tree: ast.Module) -> int:
    return sum(
        isinstance(node, ast.Name) and node.id == 'Any'
        for node in ast.walk(tree)
    )


class Imports:
    """The imports between the modules of myservice/db.

    :param root: the root of a checkout
    """

    def __init__(self, root: pathlib.Path) -> None:
        home = root / 'myservice' / 'db'
        self._rooms = {
            _name(path, root): str(path.parent.relative_to(home))
            for path in home.rglob('*.py')
        }
        self.pairs = {
            (_name(path, root), target)
            for path in home.rglob('*.py')
            for target in self._targets(ast.parse(path.read_text()))
        }

    def _targets(self, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f'{node.module}.{alias.name}'
                    yield inner if inner in self._rooms else node.module
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)

    def figures(self) -> dict[str, Any]:
        """Return the number of imports, in all and between each two rooms."""
        rooms: collections.Counter[tuple[str, str]] = collections.Counter(
            (self._rooms[source], self._rooms[target])
            for source, target in self.pairs
            if target in self._rooms and source != target
        )
        between = {pair: n for pair, n in rooms.items() if pair[0] != pair[1]}
        return {
            'rooms': len(set(self._rooms.values())),
            'imports': rooms.total(),
            'between rooms': sum(between.values()),
            'pairs of rooms': len(between),
            'inside of a room': rooms.total() - sum(between.values()),
            'floors': self._floors(),
            'rooms that import others': {
                f'{source} -> {target}': between[source, target]
                for source, target in sorted(between)
            },
        }

    def _floors(self) -> int:
        """Return the length of the longest chain of imports."""
        floors = dict.fromkeys(self._rooms, 1)
        # A cycle would never end; no chain is longer than the number of
        # modules.
        for _ in self._rooms:
            raised = {
                source: floors[target] + 1
                for source, target in self.pairs
                if target in floors
                and source != target
                and floors[source] <= floors[target]
            }
            if not raised:
                break
            floors |= raised
        return max(floors.values())


def _name(path: pathlib.Path, root: pathlib.Path) -> str:
    parts = path.relative_to(root).with_suffix('').parts
    return '.'.join(parts).removesuffix('.__init__')


def report(root: pathlib.Path) -> dict[str, Any]:
    """Return all figures of a checkout.

    :param root: its root
    """
    return {
        'sizes': {
            name: sizes(files, root) for name, files in areas(root).items()
        },
        'imports of myservice/db': Imports(root).figures(),
    }


def show(found: dict[str, Any]) -> Iterator[str]:
    """Return the figures as lines of text.

    :param found: the figures that report returned
    """
    for title, figures in itertools.chain(
        found['sizes'].items(),
        [('imports of myservice/db', found['imports of myservice/db'])],
    ):
        yield f'{title}\n{"-" * len(title)}'
        for name, value in figures.items():
            if isinstance(value, dict):
                yield from (f'  {value[pair]:6}  {pair}' for pair in value)
            else:
                yield f'{name:36}{value}'
        yield ''


def main() -> None:
    """Print the figures of a checkout."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('root', nargs='?', type=pathlib.Path, default=ROOT)
    parser.add_argument('--json', action='store_true', help='print JSON')
    arguments = parser.parse_args()
    found = report(arguments.root.resolve())
    print(
        json.dumps(found, indent=2)
        if arguments.json
        else '\n'.join(show(found))
    )


if __name__ == '__main__':
    main()
