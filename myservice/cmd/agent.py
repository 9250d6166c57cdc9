"""myservice-agent: one service of the control plane, as a process."""

import logging
import signal
import socket
import sys

from oslo_config import cfg
from oslo_log import log

from myservice.agent.process import Agent
from myservice.cmd import common
from myservice.cmd import terminal

PROGRAM = 'myservice-agent'

_VALUES = [
    cfg.StrOpt(
        'host',
        default=socket.gethostname(),
        sample_default='<the name of this host>',
        help='The host that the service registers.',
    ),
    cfg.StrOpt(
        'binary',
        default=PROGRAM,
        help='The binary that the service registers.',
    ),
    cfg.StrOpt('topic', help='The topic that the service registers.'),
    cfg.StrOpt(
        'availability_zone',
        help='The availability zone that the service registers.',
    ),
]

_REPLACE = cfg.BoolOpt(
    'replace',
    default=False,
    help='Register even if another process runs with this host and binary; '
    'that one then stops. Without it, this one refuses to start.',
)


def main(argv: list[str] | None = None) -> int:
    """Run an agent until SIGTERM or SIGINT; SIGHUP reads the files again."""

    def register(conf: cfg.ConfigOpts) -> None:
        log.register_options(conf)
        # It logs each connection that it opens or closes.
        quiet = ['myservice.db.engine.pools.Pool=WARN']
        log.set_defaults(
            default_log_levels=log.get_default_log_levels() + quiet
        )
        conf.register_cli_opts([*_VALUES, _REPLACE])

    def body() -> None:
        conf = common.start(PROGRAM, argv, register)
        log.setup(conf, 'myservice')
        # Otherwise each line that cannot be logged would print a traceback.
        logging.raiseExceptions = False

        def limit_retries() -> None:
            # A heartbeat is not retried after the next one is due.
            conf.set_default(
                'db_retry_deadline', conf.service.report_interval, 'database'
            )

        def reload() -> None:
            common.reload(conf, PROGRAM, argv, register)
            limit_retries()

        limit_retries()
        values = {
            option.dest: conf[option.dest]
            for option in _VALUES
            if conf[option.dest] is not None
        }
        process = Agent(conf, values, conf.replace, reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.stop())
        signal.signal(signal.SIGHUP, lambda *_: process.reload())
        try:
            process.run()
        finally:
            # Nobody has to read the log, so an error of writing it is ignored.
            terminal.discard(sys.stdout)

    return common.run(PROGRAM, body)


if __name__ == '__main__':
    sys.exit(main())
