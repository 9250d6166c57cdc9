"""How errors are pickled and copied.

Python rebuilds an exception by calling its class with its ``args``. If the
class takes other arguments, as those of oslo.db do, that fails or loses the
message. Here an exception is rebuilt without ``__init__``, from its args and
its attributes, which include the notes of ``add_note``.

Some values cannot be pickled: a driver's error that holds a connection, or one
whose class cannot be called with its args. Their text replaces them, so the
error itself is kept.
"""

import contextlib
import contextvars
import copy
import pickle
from collections.abc import Callable
from typing import Any

_PLAIN = (str, bytes, int, float, bool, type(None))

# The present depth: an error may contain errors, even itself.
_depth: contextvars.ContextVar[int] = contextvars.ContextVar(
    'depth', default=0
)
_DEEPEST = 5


def reduced(plain: Any) -> tuple[Any, ...]:
    """Return what pickle and copy rebuild an exception from.

    :param plain: what ``__reduce__`` of Python's exceptions returns
    """
    kind, args, *rest = plain
    attributes = rest[0] if rest else {}
    return _make, (
        kind,
        [_carried(value) for value in args],
        {name: _carried(value) for name, value in attributes.items()},
    )


def reduce_error(error: Exception) -> tuple[Any, ...]:
    """Return the same for an exception of another library, for copyreg.

    :param error: the exception
    """
    return reduced(error.__reduce__())


class _Carried:
    """A value that it may be impossible to pickle or to copy."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, Any]) -> '_Carried':
        try:
            return _Carried(_deeper(copy.deepcopy, self.value, memo))
        except Exception:
            # A value that cannot be copied is shared, as by copy.copy().
            return self

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            packed = _deeper(pickle.dumps, self.value)
        except Exception:
            packed = None
        return _unpack, (
            packed,
            isinstance(self.value, BaseException),
            _text(self.value),
        )


def _carried(value: Any) -> Any:
    return value if type(value) in _PLAIN else _Carried(value)


def _make(kind: Any, args: list[Any], attributes: dict[str, Any]) -> Any:
    error = kind.__new__(kind, *map(_value, args))
    error.__setstate__(
        {name: _value(value) for name, value in attributes.items()}
    )
    return error


def _value(carried: Any) -> Any:
    return carried.value if isinstance(carried, _Carried) else carried


def _unpack(packed: bytes | None, is_error: bool, text: str) -> Any:
    # The class may not exist here, or may take other arguments.
    with contextlib.suppress(Exception):
        if packed is not None:
            return pickle.loads(packed)  # noqa: S301 - it came with the error
    return Exception(text) if is_error else text


def _text(value: Any) -> str:
    kind = f'{type(value).__module__}.{type(value).__qualname__}'
    try:
        said = str(value) if isinstance(value, BaseException) else repr(value)
    except Exception:
        return f'<{kind}>'
    return f'{kind}: {said}'


def _deeper(function: Callable[..., Any], *arguments: Any) -> Any:
    token = _depth.set(_depth.get() + 1)
    try:
        if _depth.get() > _DEEPEST:
            raise RecursionError('errors in errors in errors')
        return function(*arguments)
    finally:
        _depth.reset(token)
