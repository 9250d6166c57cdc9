"""What the programs share: their start, and how they report failure.

Exit codes: 0 it was done; 1 it was refused, or the answer is no; 2 the
command line, the configuration or the database is at fault.
"""

import sqlite3
import sys
from collections.abc import Callable
from typing import Any

from oslo_config import cfg
from oslo_db import exception as db_exception
from pbr import version

from myservice import conf as options
from myservice import db
from myservice import exception

DONE, REFUSED, UNUSABLE = range(3)

_DATABASE_ERRORS = (db_exception.DBError, exception.ServerError)


def start(
    program: str,
    argv: list[str] | None,
    register: Callable[[cfg.ConfigOpts], None],
) -> cfg.ConfigOpts:
    """Read command line and configuration files, for the database too.

    :param program: the name of the program
    :param argv: its arguments; None takes those of the process
    :param register: registers what the program alone has of options
    :returns: the configuration, the program's own
    """
    conf = cfg.ConfigOpts()
    options.register_opts(conf)
    register(conf)
    conf(
        sys.argv[1:] if argv is None else argv,
        project='myservice',
        prog=program,
        version=version.VersionInfo('myservice').version_string(),
    )
    db.api.configure(conf)
    return conf


def run(program: str, body: Callable[[], int | None]) -> int:
    """Run a program, and turn what it raises into one line and an exit code.

    :param program: the name of the program, for the line
    :param body: the program; it returns its exit code, None for 0
    :returns: the exit code
    """
    try:
        return body() or DONE
    except exception.InvalidInput as error:
        return _fail(program, str(error), UNUSABLE)
    except _DATABASE_ERRORS as error:
        return _fail(program, describe(error), UNUSABLE)
    except exception.MyServiceError as error:
        return _fail(program, str(error), REFUSED)
    except cfg.ConfigFileParseError as error:
        return _fail(program, _place(error), UNUSABLE)
    except cfg.Error as error:
        return _fail(program, str(error), UNUSABLE)
    except OSError as error:
        return _fail(program, str(error), UNUSABLE)
    finally:
        db.api.dispose()


def describe(error: BaseException) -> str:
    """Return in one line what is wrong with the database."""
    lines = str(error).splitlines() or [type(error).__name__]
    hint = ''
    if isinstance(error, db_exception.DBNonExistentTable):
        hint = ': run myservice-manage db sync'
    elif _cannot_open_file(error):
        hint = '; if there is none yet, run myservice-manage db sync'
    return f'the database cannot be used: {lines[0]}{hint}'


def _place(error: cfg.ConfigFileParseError) -> str:
    # The line itself may have a password in it.
    cause: Any = error.__context__
    line = getattr(cause, 'lineno', '?')
    what = getattr(cause, 'msg', 'it cannot be read')
    return f'{error.config_file}, line {line}: {what}'


def _cannot_open_file(error: BaseException) -> bool:
    cause = getattr(error, 'inner_exception', None)
    code = getattr(getattr(cause, 'orig', None), 'sqlite_errorcode', 0)
    # The low byte is the code; the rest says which kind of it.
    return bool(code & 0xFF == sqlite3.SQLITE_CANTOPEN)


def _fail(program: str, message: str, code: int) -> int:
    print(f'{program}: {message}', file=sys.stderr)
    return code
