"""Plain values: those of Python's own types, and of no subclass of them.

A member of ``class State(str, Enum)`` is a text, and a numpy.int64 is a whole
number, but a driver that goes by the type sends the name of one and knows
nothing of the other. So what a caller gives is made plain once, before
anything looks at it; what is checked afterwards is checked by its exact type.
"""

import datetime
import functools
import operator
from collections.abc import Mapping
from typing import Any

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


def plain(value: Any) -> Any:
    """Return a value, and what is in it, without its subclass.

    :param value: anything; what stands for no value of Python's own types is
        left as it is, for those who check to refuse
    """
    return value if type(value) in _PLAIN else convert(value)


def arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call, plain ones.

    :param args: those by position
    :param kwargs: those by name
    :raises InvalidInput: when they are nested without end
    """
    if _PLAIN.issuperset(map(type, args[1:])) and not kwargs:
        # The first one is the context.
        return args, kwargs
    try:
        return tuple(map(plain, args)), {
            name: plain(value) for name, value in kwargs.items()
        }
    except RecursionError as error:
        raise exception.InvalidInput(
            field='arguments', reason='one of them is nested too deeply'
        ) from error


@functools.singledispatch
def convert(value: Any) -> Any:
    """Return what a value stands for; others register their own classes."""
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
        # The NaT of pandas says that it is one.
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
    # A named tuple is what its name says.
    make: Any = getattr(type(value), '_make', tuple)
    made: tuple[Any, ...] = make(map(plain, value))
    return made
