"""A progress bar that works only between what is measured."""

import contextlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sized
from typing import Protocol
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn

_Item = TypeVar('_Item', covariant=True)


class _Items(Sized, Iterable[_Item], Protocol[_Item]):
    """What can be counted beforehand."""


class Bar:
    """The bar.

    :param progress: what draws it
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task('starts', total=None)

    def track(self, items: _Items[_Item], text: str) -> Iterator[_Item]:
        """Return the items, one by one, and show how many are done.

        :param items: a list, or the like
        :param text: what is done with them
        """
        self._progress.reset(self._task, total=len(items), description=text)
        for item in items:
            self._progress.refresh()
            yield item
            self._progress.advance(self._task)
        self._progress.refresh()


@contextlib.contextmanager
def shown() -> Iterator[Bar]:
    """Show a bar on stderr."""
    # A thread that draws would be measured, too.
    with Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    ) as progress:
        yield Bar(progress)
