"""[database]: oslo.db's options, with our defaults, and a few of our own."""

from oslo_config import cfg
from oslo_db import options

GROUP = 'database'

OPTS = [
    cfg.FloatOpt(
        'ping_after_idle',
        default=5,
        min=0,
        help='A pooled connection that was idle for longer than this many '
        'seconds is pinged before it is used again. 0 pings each time.',
    ),
    cfg.IntOpt(
        'read_timeout',
        default=60,
        min=1,
        help='Seconds to wait for the answer of a MariaDB or MySQL server '
        'before the connection counts as lost. Keep it above '
        'innodb_lock_wait_timeout, or a wait for a lock looks like a dead '
        'server. A read_timeout in the connection URL wins.',
    ),
    cfg.IntOpt(
        'connect_timeout',
        default=5,
        min=1,
        help='Seconds to wait for a connection to a server. A '
        'connect_timeout in the connection URL wins.',
    ),
    cfg.FloatOpt(
        'sqlite_busy_timeout',
        default=30,
        min=0,
        help='Seconds that a writer waits for the lock of a SQLite file.',
    ),
]

# Where we differ from oslo.db, and why:
# - max_retries=0: oslo.db would try to connect 10 times, 10 seconds apart,
#   when the engine is made, and hold the first caller for 100 seconds. A call
#   that finds no server is retried by db_max_retries like any other.
# - use_db_reconnect: a lost connection is the commonest transient failure.
# - db_retry_interval=0 means the short start, about 10 milliseconds: a
#   deadlock is over as soon as it is reported.
_DEFAULTS = {
    'connection': 'sqlite:///$state_path/myservice.sqlite',
    'max_retries': 0,
    'use_db_reconnect': True,
    'db_retry_interval': 0,
}


def set_defaults() -> None:
    """Put our defaults into oslo.db's options, for the sample config too."""
    cfg.set_defaults(options.database_opts, **_DEFAULTS)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register oslo.db's options with our defaults, and ours, on *conf*."""
    set_defaults()
    conf.register_opts(options.database_opts, group=GROUP)
    conf.register_opts(OPTS, group=GROUP)
