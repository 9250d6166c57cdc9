"""Numbers of options: each has a range, and is refused outside of it.

Numbers that are too great do harm: as the seconds of a wait they end the
thread, and in a question to the database they make the answer NULL.
"""

from collections.abc import Callable
from typing import Any

from oslo_config import types

# In seconds.
HOUR = 3600
DAY = 24 * HOUR
TEN_YEARS = 3650 * DAY


class Whole(types.Integer):
    """A whole number in a range.

    :param least: the lowest
    :param most: the highest
    :param optional: whether it may be empty
    """

    def __init__(self, least: int, most: int, optional: bool = False) -> None:
        super().__init__(least, most)
        self.optional = optional

    def __call__(self, value: Any) -> Any:
        """Return the number that a value is.

        :param value: a text, or a number
        :raises ValueError: when it is not a number in the range
        """
        return _of_range(self, super().__call__, value, 'whole number')


class Real(types.Float):
    """A number in a range.

    :param least: the lowest
    :param most: the highest
    """

    optional = False

    def __init__(self, least: float, most: float) -> None:
        super().__init__(least, most)

    def __call__(self, value: Any) -> Any:
        """Return the number that a value is.

        :param value: a text, or a number
        :raises ValueError: when it is not a number in the range
        """
        return _of_range(self, super().__call__, value, 'number')


def _of_range(
    kind: Whole | Real, parse: Callable[[Any], Any], value: Any, what: str
) -> Any:
    try:
        number = parse(value)
    except (ValueError, OverflowError):
        number = float('nan')
    if number is None and kind.optional:
        return None
    # NaN is not equal to itself.
    if number is None or number != number:
        raise ValueError(
            f'{value!r:.100} is not a {what} between {kind.min} and {kind.max}'
        )
    return number
