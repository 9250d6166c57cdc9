"""[service]: how services tell that they are alive."""

from oslo_config import cfg

GROUP = 'service'

OPTS = [
    cfg.FloatOpt(
        'report_interval',
        default=10,
        min=0.1,
        help='Seconds between two heartbeats of a service.',
    ),
    cfg.FloatOpt(
        'down_time',
        default=60,
        min=0.1,
        help='Seconds without a heartbeat, by the clock of the database, '
        'after which a service counts as down. Keep it at 2.5 times '
        'report_interval or more, or one late beat makes a service flap. '
        'A heartbeat that is this many seconds ahead of the clock, or less, '
        'counts as one of now; one that is farther ahead, as after the clock '
        'was set back, does not count until the next one.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of this group on *conf*."""
    conf.register_opts(OPTS, group=GROUP)
