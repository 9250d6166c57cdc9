"""The base of all errors, and those of any resource.

A class declares its fields as annotations and its message as a template over
them; callers raise with keywords and read the fields as attributes. The fields
hold whole lists; a message shows the first ten values of a list and how many
more there are.
"""

import dataclasses
import itertools
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from typing import Any
from typing import ClassVar

from myservice import pickling

_SHOWN = 10


def listed(
    values: Collection[Any],
    separator: str = ', ',
    text: Callable[[Any], str] = str,
) -> str:
    """Return a text for a message: the first ten values, and how many more.

    :param values: a list, or the like
    :param separator: the text between two values
    :param text: turns one value into a text
    """
    shown = [text(each) for each in itertools.islice(values, _SHOWN)]
    if len(values) > _SHOWN:
        shown.append(f'… and {len(values) - _SHOWN} more')
    return separator.join(shown)


def _text(value: Any) -> Any:
    if isinstance(value, list | tuple | set | frozenset):
        return listed(value)
    return _inner(value) if isinstance(value, Mapping) else value


def _inner(value: Any) -> str:
    """Return a value inside of a list or dict as a text."""
    if isinstance(value, Mapping):
        pairs = listed(
            value, text=lambda key: f'{key!r}: {_inner(value[key])}'
        )
        return f'{{{pairs}}}'
    if isinstance(value, list | tuple | set | frozenset):
        return f'({listed(value, text=_inner)})'
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [each.name for each in dataclasses.fields(value)]
        values = (f'{name}={_inner(getattr(value, name))}' for name in fields)
        return f'{type(value).__name__}({", ".join(values)})'
    return repr(value)


class MyServiceError(Exception):
    """The base of all errors of myservice."""

    message: ClassVar[str] = 'An unknown error occurred.'

    def __init__(self, **fields: Any) -> None:
        for name, value in fields.items():
            setattr(self, name, value)
        texts = {name: _text(value) for name, value in fields.items()}
        super().__init__(self.message.format(**texts))

    def __reduce__(self) -> tuple[Any, ...]:
        return pickling.reduced(super().__reduce__())


class NotFound(MyServiceError):
    """The row does not exist, or this caller may not see it."""


class Conflict(MyServiceError):
    """The call does not fit the present state of the database."""


class InvalidInput(MyServiceError):
    """An argument was refused before any SQL was sent."""

    message = 'Invalid input for {field}: {reason}.'
    field: str
    reason: str


class Forbidden(MyServiceError):
    """The caller may not do what they have asked for."""

    user_id: str | None
    function: str


class AdminRequired(Forbidden):
    """The call is for administrators."""

    message = (
        'User {user_id} is not an administrator, and only administrators '
        'may call {function}.'
    )


class ProjectForbidden(Forbidden):
    """The call is for administrators, and for the project itself."""

    message = (
        'User {user_id} may not call {function} for project {project_id}: the '
        'user is neither in this project nor an administrator.'
    )
    project_id: str


class MarkerNotFound(NotFound):
    """The marker of a page is not a row of this list."""

    message = 'Marker {marker} could not be found.'
    marker: str
