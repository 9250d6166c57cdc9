"""[service]: how services show that they are alive."""

from oslo_config import cfg

from myservice.conf import ranges

GROUP = 'service'

OPTS = [
    cfg.Opt(
        'report_interval',
        type=ranges.Real(0.1, ranges.DAY),
        default=10,
        mutable=True,
        help='Seconds between two heartbeats of a service.',
    ),
    cfg.Opt(
        'down_time',
        type=ranges.Real(0.1, 30 * ranges.DAY),
        default=60,
        mutable=True,
        help='Seconds without a heartbeat, by the clock of the database, '
        'after which a service counts as down. Keep it at 2.5 times '
        'report_interval or more, or one late heartbeat makes a service flap. '
        'A heartbeat that is at most this many seconds ahead of the clock '
        'counts as one of now. If it is farther ahead, as after the clock was '
        'set back, the service counts as down until its next heartbeat.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of this group on *conf*."""
    conf.register_opts(OPTS, group=GROUP)
