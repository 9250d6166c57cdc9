"""Checks of the arguments of callers, before any SQL is sent.

The rules follow from the columns: type, length, range, NULL. Each server would
answer in its own way: SQLite takes text that is too long, MariaDB without
strict mode cuts it, PostgreSQL refuses NUL. Types have to match exactly, after
plain.py: True is not a whole number, and PyMySQL would send a member of an
enum as its name.
"""

import contextlib
import datetime
import uuid
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from myservice import exception

_LONGEST_NAME = 255
_HUNDRED_YEARS = 100 * 365 * 86400
_LARGEST: dict[type, int] = {sa.BigInteger: 2**63 - 1, sa.Integer: 2**31 - 1}
_LARGEST_NUMBER = _LARGEST[sa.BigInteger]


def check_values(
    table: sa.Table,
    values: Mapping[str, object],
    settable: Collection[str],
    required: Collection[str] = (),
) -> None:
    """Refuse values that cannot be stored as they are.

    :param table: the Table that they are for
    :param values: column name to value
    :param settable: the names of the columns that a caller may set
    :param required: the names of the columns that must be there
    :raises InvalidInput: with the first field that is wrong
    """
    check_dict('values', values)
    for field in required:
        if field not in values:
            raise invalid(field, 'it is required')
    if not values:
        raise invalid('values', 'there is nothing to set')
    for field, value in values.items():
        if field not in settable:
            raise invalid(
                str(field),
                f'it cannot be set here, only {", ".join(sorted(settable))}',
            )
        check_value(table.c[field], value)


def check_dict(field: str, value: object) -> None:
    """Refuse a value that is not a dict.

    :param field: what to call it in the error
    :param value: the dict
    :raises InvalidInput: when it is something else
    """
    if not isinstance(value, Mapping):
        raise invalid(field, f'{shown(value)} is not a dict')


def check_value(
    column: sa.ColumnElement[Any], value: Any, field: str | None = None
) -> None:
    """Refuse a value that is not what a column holds.

    :param column: the column, or a labelled expression
    :param value: the value; None stands for NULL
    :param field: what to call it in the error; the column's name by default
    :raises InvalidInput: when type, length or range do not fit
    """
    field = field or str(column.key)
    if value is None:
        if not getattr(column, 'nullable', False):
            raise invalid(field, 'it cannot be None')
        return
    python_type = column.type.python_type
    if type(value) is not python_type:
        raise _wrong_type(field, value, python_type)
    if python_type is str:
        check_text(field, value, getattr(column.type, 'length', None))
    elif python_type is int:
        largest = _LARGEST[type(column.type)]
        if not -largest - 1 <= value <= largest:
            raise invalid(field, f'{shown(value)} is out of range')
    elif python_type is datetime.datetime and value.tzinfo is not None:
        raise invalid(field, 'it has a time zone; times are naive UTC')


def check_text(field: str, value: object, length: int | None = None) -> None:
    """Refuse a value that is not a text that every server can store.

    :param field: what to call it in the error
    :param value: the text
    :param length: how many characters it may have; None is any number
    :raises InvalidInput: when it is not a text, is too long, or cannot be
        encoded
    """
    if type(value) is not str:
        raise _wrong_type(field, value, str)
    if length is not None and len(value) > length:
        raise invalid(
            field,
            f'it has {len(value)} characters, and at most {length} fit',
        )
    if '\0' in value:
        raise invalid(field, 'it contains a NUL character')
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise invalid(field, f'it cannot be encoded: {error}') from error


def check_new_id(values: Mapping[str, object]) -> None:
    """Refuse an id of the caller's that is not a UUID in its canonical form.

    :param values: what a new row is made of; the id may be among it
    :raises InvalidInput: when it is something else
    """
    if 'id' not in values:
        return
    value = values['id']
    check_text('id', value)
    with contextlib.suppress(ValueError):
        if str(uuid.UUID(str(value))) == value:
            return
    raise invalid(
        'id', f'{shown(value)} is not a UUID in lower case, with hyphens'
    )


def check_name(field: str, value: object) -> None:
    """Refuse a value that is not a name: a text, not empty, that columns hold.

    :param field: what to call it in the error
    :param value: the name
    :raises InvalidInput: when it is something else
    """
    check_text(field, value, _LONGEST_NAME)
    if not value:
        raise invalid(field, 'it is empty')


def check_whole(
    field: str, value: object, least: int, most: int = _LARGEST_NUMBER
) -> None:
    """Refuse a value that is not a whole number of a range.

    :param field: what to call it in the error
    :param value: the number
    :param least: the lowest
    :param most: the highest; by default the highest of all
    :raises InvalidInput: when it is something else
    """
    if type(value) is not int or value < least:
        raise invalid(field, f'{shown(value)} is not an integer >= {least}')
    if value > most:
        raise invalid(field, f'it is above {most}')


def check_bool(field: str, value: object) -> None:
    """Refuse a value that is neither True nor False.

    :param field: what to call it in the error
    :param value: True or False
    :raises InvalidInput: when it is something else
    """
    if type(value) is not bool:
        raise _wrong_type(field, value, bool)


def check_batch_size(value: object, field: str = 'batch_size') -> None:
    """Refuse a value that is not a number of rows to work on at once.

    :param value: a positive integer
    :param field: what to call it in the error
    :raises InvalidInput: when it is something else
    """
    check_whole(field, value, 1)


def check_registration(value: object, field: str = 'registration') -> None:
    """Refuse a value that is not the number of a registration.

    :param value: a number from 0 on; None is none
    :param field: what to call it in the error
    :raises InvalidInput: when it is something else
    """
    if value is not None:
        check_whole(field, value, 0, _LARGEST[sa.Integer])


def check_beats(field: str, values: object) -> dict[str, int | None]:
    """Refuse a value that does not say which services are alive.

    :param field: what to call it in the error
    :param values: a list, tuple or set of ids of services, or of pairs of an
        id and a registration
    :returns: id to registration, or to None; if an id comes twice, the last
        one
    :raises InvalidInput: when it is something else
    """
    if not isinstance(values, list | tuple | set | frozenset):
        raise invalid(field, f'{shown(values)} is not a list')
    beats: dict[str, int | None] = {}
    for value in values:
        pair = isinstance(value, tuple) and len(value) == 2
        service_id, registration = value if pair else (value, None)
        check_text(field, service_id)
        check_registration(registration, field)
        beats[service_id] = registration
    return beats


def check_seconds(field: str, value: object) -> None:
    """Refuse a value that is not a number of seconds.

    :param field: what to call it in the error
    :param value: a number from 0 on; None is none
    :raises InvalidInput: when it is something else, or more than a hundred
        years
    """
    if value is None:
        return
    if type(value) is not int and type(value) is not float:
        raise invalid(field, f'{shown(value)} is not a number')
    # NaN is not between them either.
    if not 0 <= value < _HUNDRED_YEARS:
        raise invalid(field, 'it is not between 0 and a hundred years')


def check_expiry(field: str, value: Any) -> None:
    """Refuse a value that does not say when something expires.

    :param field: what to call it in the error
    :param value: seconds from now, a timedelta, a datetime, or None
    :raises InvalidInput: when it is something else, or farther away than
        a hundred years
    """
    if value is None:
        return
    if type(value) is datetime.datetime:
        if value.tzinfo is None:
            value = value.replace(tzinfo=datetime.UTC)
        # By this machine's clock, which will do for a hundred years.
        value -= datetime.datetime.now(datetime.UTC)
    if type(value) is datetime.timedelta:
        value = value.total_seconds()
    if type(value) not in (int, float):
        raise invalid(
            field, f'{shown(value)} is not a number, timedelta or datetime'
        )
    # NaN is not below it either.
    if not abs(value) < _HUNDRED_YEARS:
        raise invalid(field, 'it is more than a hundred years away')


def check_texts(field: str, values: object) -> None:
    """Refuse a value that is not a list, tuple or set of texts.

    :param field: what to call it in the error
    :param values: the texts
    :raises InvalidInput: when it is something else
    """
    if not isinstance(values, list | tuple | set | frozenset):
        raise invalid(field, f'{shown(values)} is not a list')
    for value in values:
        check_text(field, value)


def check_one_or_more(field: str, values: Any) -> list[str]:
    """Refuse a value that is neither a text nor a list of texts.

    :param field: what to call it in the error
    :param values: a text, or a list, tuple or set of texts
    :returns: a list
    :raises InvalidInput: when it is something else
    """
    texts = [values] if type(values) is str else values
    check_texts(field, texts)
    return list(texts)


def _wrong_type(
    field: str, value: object, wanted: type
) -> exception.InvalidInput:
    return invalid(field, f'{shown(value)} is not of type {wanted.__name__}')


def shown(value: object) -> str:
    """Return how a message shows a value, which may be anything.

    :param value: the value
    """
    try:
        return f'{value!r:.100}'
    except Exception:
        # For example a number of more digits than Python writes.
        return f'this {type(value).__name__}'


def none_of(
    field: str, value: object, allowed: Iterable[str]
) -> exception.InvalidInput:
    """Return the error for a value that is not one of some names.

    :param field: what to call it in the error
    :param value: the value
    :param allowed: the names
    """
    names = ', '.join(sorted(allowed))
    return invalid(field, f'{shown(value)} is none of {names}')


def invalid(field: str, reason: str) -> exception.InvalidInput:
    """Return the error that refuses an argument.

    :param field: what to call the argument
    :param reason: what is wrong with it
    """
    return exception.InvalidInput(field=field, reason=reason)
