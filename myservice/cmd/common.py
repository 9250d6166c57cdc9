"""What the programs share: how they start, and how they report failure.

Exit codes: 0 done; 1 refused, or the answer is no; 2 the command line, the
configuration or the database is at fault, or the answer cannot be written; 130
interrupted; 141 nobody reads the answer.
"""

import logging
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from typing import Any

from oslo_config import cfg
from oslo_db import exception as db_exception
from pbr import version

from myservice import conf as options
from myservice import db
from myservice import exception
from myservice.cmd import terminal

LOG = logging.getLogger(__name__)

DONE, REFUSED, UNUSABLE = range(3)

# As shells report a program that a signal has ended.
INTERRUPTED = 128 + signal.SIGINT
UNREAD = 128 + signal.SIGPIPE

_UNUSABLE = (exception.InvalidInput, *db.api.DATABASE_ERRORS)
_CONFIGURATION_ERRORS = (cfg.Error, exception.InvalidInput, OSError)


def start(
    program: str,
    argv: list[str] | None,
    register: Callable[[cfg.ConfigOpts], None],
) -> cfg.ConfigOpts:
    """Read the command line and files, and configure the database.

    :param program: the name of the program
    :param argv: its arguments; None takes those of the process
    :param register: registers the options that only this program has
    :returns: the configuration of the program
    """
    conf = _read(program, argv, register)
    db.api.configure(conf)
    return conf


def reload(
    conf: cfg.ConfigOpts,
    program: str,
    argv: list[str] | None,
    register: Callable[[cfg.ConfigOpts], None],
) -> None:
    """Read the configuration files again; mutable options get new values.

    If the files cannot be used, that is logged and nothing changes.

    :param conf: the configuration that start() returned
    :param program: as for start()
    :param argv: as for start()
    :param register: as for start()
    """
    try:
        # First into another object: else a wrong value would be in use already
        # when it is found.
        _read(program, argv, register)
        conf.mutate_config_files()
    except _CONFIGURATION_ERRORS as error:
        reason = describe(error)
    else:
        LOG.info('The configuration was read again.')
        return
    # Logged here, as oslo.log appends the caught error inside of "except".
    LOG.error('The configuration stays as it was: %s', reason)


def _read(
    program: str,
    argv: list[str] | None,
    register: Callable[[cfg.ConfigOpts], None],
) -> cfg.ConfigOpts:
    conf = cfg.ConfigOpts()
    options.register_opts(conf)
    register(conf)
    try:
        conf(
            sys.argv[1:] if argv is None else argv,
            project='myservice',
            prog=program,
            version=version.VersionInfo('myservice').version_string(),
        )
    except UnicodeDecodeError as error:
        raise exception.InvalidInput(
            field=_file_in(error), reason=f'it is not a text file: {error}'
        ) from error
    options.check(conf)
    return conf


def _file_in(error: BaseException) -> str:
    """Return the configuration file that was being read."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        reader = frame.f_locals.get('self')
        if isinstance(reader, cfg.ConfigParser):
            return str(reader.filename)
    return 'the configuration'


def run(program: str, body: Callable[[], int | None]) -> int:
    """Run a program, and turn what it raises into one line and an exit code.

    :param program: the name of the program, for the line
    :param body: the program; it returns its exit code, None for 0
    :returns: the exit code
    """
    terminal.prepare()
    try:
        with terminal.flushed():
            return body() or DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has read enough.
        terminal.discard(sys.stdout)
        return UNREAD
    except OSError as error:
        terminal.discard(sys.stdout)
        return _fail(program, error, UNUSABLE)
    except (*_UNUSABLE, cfg.Error) as error:
        return _fail(program, error, UNUSABLE)
    except exception.MyServiceError as error:
        return _fail(program, error, REFUSED)
    finally:
        db.api.dispose()


def describe(error: BaseException) -> str:
    """Return one line that says what is wrong."""
    text = str(error)
    if isinstance(error, cfg.ConfigFileParseError):
        return _place(error)
    if isinstance(error, OSError) and error.filename is None:
        return f'the answer cannot be written: {text}'
    if not isinstance(error, db.api.DATABASE_ERRORS):
        return text
    line = (text.splitlines() or [type(error).__name__])[0]
    hint = ''
    if isinstance(error, db_exception.DBNonExistentTable):
        hint = ': run myservice-manage db sync'
    elif _cannot_open_file(error):
        hint = '; if there is none yet, run myservice-manage db sync'
    return f'the database cannot be used: {line}{hint}'


def _place(error: cfg.ConfigFileParseError) -> str:
    # The line itself is not shown: it may contain a password.
    cause: Any = error.__context__
    line = getattr(cause, 'lineno', '?')
    what = getattr(cause, 'msg', 'it cannot be read')
    return f'{error.config_file}, line {line}: {what}'


def _cannot_open_file(error: BaseException) -> bool:
    cause = getattr(error, 'inner_exception', None)
    code = getattr(getattr(cause, 'orig', None), 'sqlite_errorcode', 0)
    # The low byte is the code; the rest is its subtype.
    return bool(code & 0xFF == sqlite3.SQLITE_CANTOPEN)


def _fail(program: str, error: BaseException, code: int) -> int:
    terminal.tell(f'{program}: {describe(error)}')
    return code
