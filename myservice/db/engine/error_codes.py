"""The meaning of each number of a driver's error, in one table.

The numbers are MySQL's error numbers; SQLSTATE in PostgreSQL, where the first
two characters stand for a class of errors; and extended result codes in
SQLite, where the low byte stands for a class. A number that is not in the
table has the meaning of the driver's own class. One cause has one type on all
databases.
"""

import re
import sqlite3
from collections.abc import Callable
from typing import Any

from oslo_db import exception as db_exception
from sqlalchemy import exc

from myservice import exception
from myservice.db.engine import error_details as details
from myservice.db.engine.error_details import Code
from myservice.db.engine.error_details import DriverError
from myservice.db.sql.dialects import Backend

# None means "as if it were not in the table".
Make = Callable[[DriverError], Exception | None]

# The options by which a server refuses all writes; other options forbid other
# things. Their names are the same in all languages.
_READ_ONLY_OPTION = re.compile(r'--(?:super[-_])?read[-_]only\b')

# PgBouncer's words, of several versions.
_NO_DATABASE = re.compile('no such database|database .* does not exist')
_FINAL = re.compile('authentication failed|unsupported startup parameter')


def _ours(kind: type[exception.ServerError]) -> Make:
    return lambda error: kind(reason=first_line(error.wrapped))


def _oslo(kind: type[db_exception.DBError]) -> Make:
    return lambda error: details.made(kind, error.wrapped)


def first_line(error: BaseException) -> str:
    """Return what an error says, without the statement and its parameters."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


_deadlock = _oslo(db_exception.DBDeadlock)
_conflict = _oslo(db_exception.DBConsistencyError)
_lost = _oslo(db_exception.DBConnectionError)
_data = _oslo(db_exception.DBDataError)
_unsupported = _oslo(db_exception.DBNotSupportedError)
_busy = _ours(exception.ServerBusy)
_interrupted = _ours(exception.StatementInterrupted)
_no_space = _ours(exception.NoSpace)


def _read_only(error: DriverError) -> Exception:
    if error.only_reads:
        return exception.WriteInReadOnly(statement=f'{error.statement:.1000}')
    return exception.ServerReadOnly(reason=first_line(error.wrapped))


def _unknown_routine(error: DriverError) -> Exception | None:
    # When another Galera node aborts a transaction, the next statement, and
    # only that, gets an error; a savepoint of it is then unknown.
    is_savepoint = ' SAVEPOINT ' in error.statement.upper()
    return _deadlock(error) if is_savepoint else None


def _forbidden_by_option(error: DriverError) -> Exception | None:
    is_read_only = _READ_ONLY_OPTION.search(error.text)
    return _read_only(error) if is_read_only else None


def _packets_out_of_order(error: DriverError) -> Exception | None:
    # PyMySQL has no number for it, but uses this class for nothing else.
    is_internal = isinstance(error.wrapped, exc.InternalError)
    return _lost(error) if is_internal else None


def _not_supported(error: DriverError) -> Exception | None:
    # The table was altered since the statement was prepared.
    function = error.raised.diag.source_function
    is_stale = function == 'RevalidateCachedQuery'
    return (_lost if is_stale else _unsupported)(error)


def _of_protocol(error: DriverError) -> Exception | None:
    # PgBouncer refuses everything with one SQLSTATE, and in one language.
    if error.raised.pgconn is not None:
        if _NO_DATABASE.search(error.text):
            return details.postgresql_database(error)
        if _FINAL.search(error.text):
            return None
    return _lost(error)


def _sqlite_read_only(error: DriverError) -> Exception:
    if error.only_reads:
        return _read_only(error)
    reason = first_line(error.wrapped)
    if error.code == sqlite3.SQLITE_READONLY_DIRECTORY:
        reason += (
            '; the directory cannot be written either; where nobody writes, '
            'sqlite:///file:PATH?immutable=1&uri=true can be read'
        )
    return exception.DatabaseReadOnly(reason=reason)


def _sqlite_error(error: DriverError) -> Exception | None:
    # SQLite has one number for all of these, and one language.
    if error.text.startswith('no such table: '):
        return details.sqlite_table(error)
    return _data(error) if error.text == 'integer overflow' else None


def _all(codes: tuple[Code, ...], make: Make) -> dict[Code, Make]:
    return dict.fromkeys(codes, make)


_MYSQL: dict[Code, Make] = {
    **_all((1205, 1213, 1614, 1689, 3058, 3101, 3572), _deadlock),
    1020: _conflict,
    1305: _unknown_routine,
    # The connection: not made, broken, closed by the server, out of step.
    **_all((0, 2002, 2003, 2005, 2006, 2012, 2013, 2014, 2027), _lost),
    **_all((1043, 1053, 1077, 1079, 1080, 1152, 1184, 1927), _lost),
    **_all((1158, 1159, 1160, 1161, 2045, 2055, 3169, 4031), _lost),
    # Galera: no quorum; the quorum was lost while COMMIT was under way.
    **_all((1047, 1180), _lost),
    None: _packets_out_of_order,
    **_all((1040, 1135, 1203, 1226), _busy),
    **_all((1792, 1836), _read_only),
    1290: _forbidden_by_option,
    **_all((1028, 1317, 1969, 3024), _interrupted),
    **_all((5, 20, 1021, 1037, 1038, 1041, 1114, 1206, 3170), _no_space),
    **_all((1062, 1586, 1859), details.mysql_duplicate),
    1022: details.nameless_duplicate,
    **_all((1216, 1217, 1451, 1452), details.mysql_reference),
    **_all((3819, 4025), details.mysql_check),
    **_all((1048, 1263, 1364, 1369, 1526), details.nameless_constraint),
    **_all((1051, 1146), details.mysql_table),
    **_all((1008, 1049), details.mysql_database),
    1091: details.constraint,
    **_all((1153, 1264, 1265, 1292, 1300, 1365, 1366, 1367), _data),
    **_all((1406, 1411, 1416, 1441, 1690, 3140, 3854, 3988), _data),
}

_POSTGRESQL: dict[Code, Make] = {
    **_all(('40001', '40P01', '55P03'), _deadlock),
    # Of a class: the connection is lost.
    '08': _lost,
    '08P01': _of_protocol,
    **_all(('25P03', '25P04', '57P01', '57P02', '57P04', '57P05'), _lost),
    '40003': _lost,
    # A pooler gave us a connection with the prepared statements of others.
    **_all(('26000', '42P05'), _lost),
    '0A000': _not_supported,
    **_all(('53300', '57P03'), _busy),
    '25006': _read_only,
    '57014': _interrupted,
    '53': _no_space,
    '23505': details.postgresql_duplicate,
    **_all(('23001', '23503'), details.postgresql_reference),
    # Of a class: a constraint forbids it.
    '23': details.postgresql_check,
    **_all(('40002', '44000'), details.postgresql_check),
    '42P01': details.postgresql_table,
    '3D000': details.postgresql_database,
    '42704': details.constraint,
    '22': _data,
}

_SQLITE: dict[Code, Make] = {
    1: _sqlite_error,
    **_all((5, 6, 15), _deadlock),
    **_all((7, 13), _no_space),
    8: _sqlite_read_only,
    9: _interrupted,
    14: details.sqlite_database,
    **_all((18, 20, 3091), _data),
    275: details.sqlite_check,
    787: details.sqlite_reference,
    1299: details.sqlite_null,
    **_all((1555, 2067, 2579), details.sqlite_duplicate),
}

_TABLES: dict[Backend, dict[Code, Make]] = {
    'mysql': _MYSQL,
    'postgresql': _POSTGRESQL,
    'sqlite': _SQLITE,
}

# The class of a number, where numbers have classes.
_CLASSES: dict[Backend, Callable[[Any], Code]] = {
    'postgresql': lambda sqlstate: sqlstate[:2],
    'sqlite': lambda result: result & 0xFF,
}

# These roll the whole transaction back, also inside of a savepoint.
ENDED: set[Code] = {1213, 1020, 1305, 1614, 3101, '40001', '40P01'}

# The command was refused, so it was surely not executed, even if it was
# COMMIT.
REFUSED: set[Code] = {1047, '26000', '42P05', '0A000'}


def number(raised: BaseException) -> Code:
    """Return the number of an error that a driver has raised, if it has one.

    :param raised: the error
    """
    # PyMySQL has both; its numbers say more than its SQLSTATE.
    first = raised.args[0] if raised.args else None
    if isinstance(first, int):
        return first
    result: Code = getattr(raised, 'sqlite_errorcode', None)
    sqlstate: Code = getattr(raised, 'sqlstate', None)
    return sqlstate if result is None else result


def meaning(backend: Backend, error: DriverError) -> Exception:
    """Return what an error means.

    :param backend: which database it is
    :param error: the error, as the driver has raised it
    """
    table = _TABLES[backend]
    make = table.get(error.code)
    if make is None and error.code is not None and backend in _CLASSES:
        make = table.get(_CLASSES[backend](error.code))
    return (make and make(error)) or _meaning_of_class(error.wrapped)


def _meaning_of_class(wrapped: Exception) -> Exception:
    if isinstance(wrapped, exc.DataError):
        return details.made(db_exception.DBDataError, wrapped)
    if isinstance(wrapped, exc.NotSupportedError):
        return details.made(db_exception.DBNotSupportedError, wrapped)
    return details.made(db_exception.DBError, wrapped)
