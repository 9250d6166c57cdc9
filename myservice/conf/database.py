"""[database]: the options of oslo.db with our defaults, and our own."""

from typing import Any

from oslo_config import cfg
from oslo_db import options

from myservice.conf import ranges

GROUP = 'database'

# Nothing here reads them, so the sample configuration leaves them out.
_WITHOUT_EFFECT = {
    'backend',
    'synchronous_reader',
    'asyncio_connection',
    'asyncio_slave_connection',
}

_OURS = [
    cfg.Opt(
        'ping_after_idle',
        type=ranges.Real(0, ranges.DAY),
        default=1,
        help='A pooled connection that was idle for longer than this many '
        'seconds is pinged before it is used again. 0 pings each time. One '
        'second is the lowest wait_timeout of a MariaDB or MySQL server, so '
        'with it no connection is used that the server has closed after '
        'wait_timeout. Keep it shorter than the idle timeout of any proxy, '
        'too.',
    ),
    cfg.Opt(
        'read_timeout',
        type=ranges.Whole(1, ranges.DAY),
        default=60,
        help='Seconds to wait for the answer of a MariaDB or MySQL server '
        'before the connection counts as lost. Keep it above '
        'innodb_lock_wait_timeout, or a wait for a lock looks like a dead '
        'server. Migrations wait without a limit. With PostgreSQL this is the '
        'time that a host may be silent (tcp_user_timeout). A read_timeout or '
        'tcp_user_timeout in the connection URL takes precedence.',
    ),
    cfg.Opt(
        'connect_timeout',
        type=ranges.Whole(1, ranges.HOUR),
        default=5,
        help='Seconds to wait for a connection to a server. A connect_timeout '
        'in the connection URL takes precedence.',
    ),
    cfg.Opt(
        'sqlite_busy_timeout',
        type=ranges.Real(0, ranges.DAY),
        default=30,
        help='Seconds that a writer waits for the lock of a SQLite file. A '
        'timeout in the connection URL takes precedence.',
    ),
    cfg.Opt(
        'db_retry_deadline',
        type=ranges.Real(0, ranges.DAY),
        default=60,
        mutable=True,
        help='Seconds after which a call that met transient errors gives up, '
        'even if db_max_retries allows more retries. Without it, twenty waits '
        'of fifty seconds for a lock would add up. 0 means no deadline.',
    ),
    cfg.Opt(
        'operation_lifetime',
        type=ranges.Whole(60, ranges.TEN_YEARS),
        default=86400,
        mutable=True,
        help='Seconds for which a transaction of run_in_transaction can be '
        'recognised after its COMMIT was lost. Older rows of the table '
        '"operations" are purged.',
    ),
]

# oslo.db has no range for most of its numbers.
_RANGES = {
    'connection_recycle_time': (-1, ranges.TEN_YEARS),
    'connection_debug': (0, 100),
    'db_max_retries': (-1, 10**6),
    'db_max_retry_interval': (0, ranges.HOUR),
    'db_retry_interval': (0, ranges.HOUR),
    'max_overflow': (-1, 10**5),
    'max_pool_size': (0, 10**5),
    'max_retries': (-1, 10**6),
    # A sum of bits.
    'mysql_wsrep_sync_wait': (0, 15),
    'pool_timeout': (0, ranges.DAY),
    'retry_interval': (0, ranges.DAY),
}

# Each call reads these again.
_MUTABLE = {
    'db_inc_retry_interval',
    'db_max_retries',
    'db_max_retry_interval',
    'db_retry_interval',
    'use_db_reconnect',
}

for _option in options.database_opts:
    if _option.dest in _RANGES:
        _option.type = ranges.Whole(
            *_RANGES[_option.dest], optional=_option.default is None
        )
    _option.mutable = _option.dest in _MUTABLE

# Where we differ from oslo.db, and why:
# - max_retries=0: oslo.db would try to connect 10 times, 10 seconds apart,
#   when the engine is made, and hold the first caller for 100 seconds. A call
#   that finds no server is retried by db_max_retries like any other.
# - use_db_reconnect: a lost connection is the most common transient failure.
# - db_retry_interval=0 means the short start, about 10 milliseconds: a
#   deadlock is over as soon as it is reported.
_DEFAULTS = {
    'connection': 'sqlite:///$state_path/myservice.sqlite',
    'max_retries': 0,
    'use_db_reconnect': True,
    'db_retry_interval': 0,
}
cfg.set_defaults(options.database_opts, **_DEFAULTS)

OPTS = [
    *(
        option
        for option in options.database_opts
        if option.dest not in _WITHOUT_EFFECT
    ),
    *_OURS,
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register oslo.db's options with our defaults, and ours, on *conf*."""
    conf.register_opts(options.database_opts, group=GROUP)
    conf.register_opts(_OURS, group=GROUP)


def for_enginefacade(conf: cfg.ConfigOpts) -> dict[str, Any]:
    """Return the options that oslo.db's enginefacade takes."""
    names = {option.dest for option in options.database_opts}
    return {
        name: value for name, value in conf.database.items() if name in names
    }
