"""Checks of what callers pass, before any SQL is sent.

The rules follow from the columns: type, length, range, NULL. The servers
would each answer in their own way: SQLite takes text that is too long,
MariaDB without strict mode cuts it, PostgreSQL refuses NUL.
"""

import datetime
from collections.abc import Collection
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from myservice import exception

_LONGEST_NAME = 255
_HUNDRED_YEARS = 100 * 365 * 86400
_INTEGER_LIMITS = {sa.BigInteger: 2**63, sa.Integer: 2**31}


def check_values(
    table: Any,
    values: Mapping[str, Any],
    settable: Collection[str],
    required: Collection[str] = (),
) -> None:
    """Refuse values that cannot be stored as they are.

    :param table: the Table that they are for
    :param values: column name to value
    :param settable: the names of the columns that a caller may set
    :param required: the names of those that must be there
    :raises InvalidInput: with the first field that is wrong
    """
    if not isinstance(values, Mapping):
        raise _invalid('values', f'{values!r:.100} is not a dict')
    for field in required:
        if field not in values:
            raise _invalid(field, 'it is required')
    if not values:
        raise _invalid('values', 'there is nothing to set')
    for field, value in values.items():
        if field not in settable:
            raise _invalid(
                str(field),
                f'it cannot be set here, only {", ".join(sorted(settable))}',
            )
        check_value(table.c[field], value)


def check_value(column: Any, value: Any, field: str | None = None) -> None:
    """Refuse a value that is not what a column holds.

    :param column: the column, or a labelled expression
    :param value: the value; None stands for NULL
    :param field: what to call it in the error; the column's name by default
    :raises InvalidInput: when type, length or range do not fit
    """
    field = field or column.key
    if value is None:
        if not getattr(column, 'nullable', False):
            raise _invalid(field, 'it cannot be None')
        return
    python_type = column.type.python_type
    right = isinstance(value, python_type)
    if python_type is int and isinstance(value, bool):
        right = False
    if not right:
        raise _invalid(
            field, f'{value!r:.100} is not of type {python_type.__name__}'
        )
    if isinstance(value, str):
        check_text(field, value, getattr(column.type, 'length', None))
    elif isinstance(value, int) and not isinstance(value, bool):
        limit = _INTEGER_LIMITS[type(column.type)]
        if not -limit <= value < limit:
            raise _invalid(field, f'{value} is out of range')
    elif isinstance(value, datetime.datetime) and value.tzinfo is not None:
        raise _invalid(field, 'it has a time zone; times are naive UTC')


def check_text(field: str, value: Any, length: int | None = None) -> None:
    """Refuse what is no text that every server can store.

    :param field: what to call it in the error
    :param value: the text
    :param length: how many characters it may have; None is any number
    :raises InvalidInput: when it is no text, too long, or cannot be encoded
    """
    if not isinstance(value, str):
        raise _invalid(field, f'{value!r:.100} is not of type str')
    if length is not None and len(value) > length:
        raise _invalid(
            field,
            f'it has {len(value)} characters, and at most {length} fit',
        )
    if '\0' in value:
        raise _invalid(field, 'it contains a NUL character')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _invalid(field, f'it cannot be encoded: {error}') from error


def check_name(field: str, value: Any) -> None:
    """Refuse what is no name: a text, not empty, that columns hold.

    :param field: what to call it in the error
    :param value: the name
    :raises InvalidInput: when it is something else
    """
    check_text(field, value, _LONGEST_NAME)
    if not value:
        raise _invalid(field, 'it is empty')


def check_batch_size(value: Any, field: str = 'batch_size') -> None:
    """Refuse what is no number of rows to work on at once.

    :param value: a number from 1 on
    :param field: what to call it in the error
    :raises InvalidInput: when it is something else
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _invalid(field, f'{value!r:.100} is not a number from 1 on')


def check_registration(value: Any, field: str = 'registration') -> None:
    """Refuse what is no number of a registration.

    :param value: a number from 0 on; None is none
    :param field: what to call it in the error
    :raises InvalidInput: when it is something else
    """
    if value is None:
        return
    right = isinstance(value, int) and not isinstance(value, bool)
    if not right or not 0 <= value < _INTEGER_LIMITS[sa.Integer]:
        raise _invalid(field, f'{value!r:.100} is not a number from 0 on')


def check_beats(field: str, values: Any) -> dict[str, int | None]:
    """Refuse what does not say which services live.

    :param field: what to call it in the error
    :param values: a list, tuple or set of ids of services, or of pairs of an
        id and a registration
    :returns: id to registration, or to None; of several the last one
    :raises InvalidInput: when it is something else
    """
    if not isinstance(values, list | tuple | set | frozenset):
        raise _invalid(field, f'{values!r:.100} is not a list')
    beats: dict[str, int | None] = {}
    for value in values:
        pair = isinstance(value, tuple) and len(value) == 2
        service_id, registration = value if pair else (value, None)
        check_text(field, service_id)
        check_registration(registration, field)
        beats[service_id] = registration
    return beats


def check_seconds(field: str, value: Any) -> None:
    """Refuse what is no number of seconds.

    :param field: what to call it in the error
    :param value: a number from 0 on; None is none
    :raises InvalidInput: when it is something else, or more than a hundred
        years
    """
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _invalid(field, f'{value!r:.100} is not a number')
    # A number that is none is not between them either.
    if not 0 <= value < _HUNDRED_YEARS:
        raise _invalid(field, f'{value} is not between 0 and a hundred years')


def check_expiry(field: str, value: Any) -> None:
    """Refuse what does not say when something expires.

    :param field: what to call it in the error
    :param value: seconds from now, a timedelta, a datetime, or None
    :raises InvalidInput: when it is something else, or farther away than
        a hundred years
    """
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    if value is None or isinstance(value, datetime.datetime):
        return
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _invalid(
            field, f'{value!r:.100} is no number, timedelta or datetime'
        )
    # A number that is none is not below it either.
    if not abs(value) < _HUNDRED_YEARS:
        raise _invalid(field, f'{value} seconds are too far away')


def check_texts(field: str, values: Any) -> None:
    """Refuse what is no list, tuple or set of texts.

    :param field: what to call it in the error
    :param values: the texts
    :raises InvalidInput: when it is something else
    """
    if not isinstance(values, list | tuple | set | frozenset):
        raise _invalid(field, f'{values!r:.100} is not a list')
    for value in values:
        check_text(field, value)


def check_one_or_more(field: str, values: Any) -> list[str]:
    """Refuse what is neither a text nor a list of texts.

    :param field: what to call it in the error
    :param values: a text, or a list, tuple or set of texts
    :returns: a list
    :raises InvalidInput: when it is something else
    """
    texts = [values] if isinstance(values, str) else values
    check_texts(field, texts)
    return list(texts)


def _invalid(field: str, reason: str) -> exception.InvalidInput:
    return exception.InvalidInput(field=field, reason=reason)
