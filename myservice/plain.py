"""Plain values: those of Python's own types, not of their subclasses.

A member of ``class State(str, Enum)`` is a text, and a numpy.int64 is a whole
number. But drivers look at the exact type: they send the name of the member,
and refuse the numpy.int64. So each argument is made plain once, before
anything looks at it. Later checks are checks of the exact type.
"""

import datetime
import functools
import operator
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

from myservice import exception

_DATE = ('year', 'month', 'day')
_TIME = ('hour', 'minute', 'second', 'microsecond', 'tzinfo')
_PLAIN = frozenset(
    {
        type(None),
        bool,
        bytes,
        datetime.datetime,
        datetime.timedelta,
        float,
        int,
        str,
    }
)


A = TypeVar('A', bound=tuple[Any, ...])
K = TypeVar('K', bound=dict[str, Any])


def plain(value: Any) -> Any:
    """Return a value, and what is in it, without its subclass.

    :param value: anything; a value that cannot be made plain is returned as it
        is, and the checks of the caller refuse it
    """
    return value if type(value) in _PLAIN else convert(value)


def arguments(args: A, kwargs: K) -> tuple[A, K]:
    """Return the arguments of a call, made plain.

    :param args: the arguments by position
    :param kwargs: the arguments by name
    :raises InvalidInput: when they are nested without end
    """
    if _PLAIN.issuperset(map(type, args[1:])) and not kwargs:
        # The first one is the context.
        return args, kwargs
    try:
        made: Any = tuple(map(plain, args))
        named: Any = {name: plain(value) for name, value in kwargs.items()}
        return made, named
    except RecursionError as error:
        raise exception.InvalidInput(
            field='arguments', reason='one of them is nested too deeply'
        ) from error


@functools.singledispatch
def convert(value: Any) -> Any:
    """Return the plain value of a value; others register their own classes."""
    try:
        return operator.index(value)
    except TypeError:
        return value


@convert.register
def _text(value: str) -> str:
    return str.__str__(value)


@convert.register
def _whole(value: int) -> int:
    return int.__index__(value)


@convert.register
def _number(value: float) -> float:
    return float.__float__(value)


@convert.register
def _moment(value: datetime.datetime) -> datetime.datetime:
    parts = {name: getattr(value, name) for name in (*_DATE, *_TIME)}
    try:
        return datetime.datetime(**parts, fold=value.fold)
    except (TypeError, ValueError):
        # The NaT of pandas is a datetime by its class, but has no numbers.
        return value


@convert.register
def _duration(value: datetime.timedelta) -> datetime.timedelta:
    try:
        return datetime.timedelta(
            value.days, value.seconds, value.microseconds
        )
    except (TypeError, ValueError):
        return value


@convert.register(Mapping)
def _mapping(value: Mapping[Any, Any]) -> dict[Any, Any]:
    return {plain(key): plain(each) for key, each in value.items()}


@convert.register(list)
@convert.register(set)
@convert.register(frozenset)
def _several(value: Any) -> Any:
    kind: Any = next(
        kind for kind in (list, set, frozenset) if isinstance(value, kind)
    )
    are_plain = _PLAIN.issuperset(map(type, value))
    return kind(value if are_plain else map(plain, value))


@convert.register
def _tuple(value: tuple) -> tuple[Any, ...]:  # type: ignore[type-arg]
    # A named tuple keeps its class.
    make: Any = getattr(type(value), '_make', tuple)
    made: tuple[Any, ...] = make(map(plain, value))
    return made
