"""[agent]: how an agent finds work, and what does it."""

from oslo_config import cfg

from myservice.conf import ranges

GROUP = 'agent'

OPTS = [
    cfg.StrOpt(
        'worker',
        default='wait',
        help='What works on a resource that is requested: the name of an '
        'entry point in the group myservice.workers. The built-in "wait" '
        'waits, and makes it available.',
    ),
    cfg.Opt(
        'worker_seconds',
        type=ranges.Real(0, ranges.DAY),
        default=1,
        help='Seconds that the built-in worker takes for a resource.',
    ),
    cfg.Opt(
        'poll_interval',
        type=ranges.Real(0.01, ranges.HOUR),
        default=1,
        mutable=True,
        help='Seconds between two looks for work where there was none, on '
        'average: each wait is between half and one and a half times as '
        'long, so that agents do not look all at once.',
    ),
    cfg.Opt(
        'concurrency',
        type=ranges.Whole(0, 1000),
        default=1,
        help='On how many resources an agent works at the same time, each in '
        'a thread of its own. With 0 it works on none: it beats, and frees '
        'the claims of dead services. Keep it below [database] max_pool_size '
        '+ max_overflow.',
    ),
    cfg.Opt(
        'take_over_interval',
        type=ranges.Real(0.1, ranges.DAY),
        default=10,
        mutable=True,
        help='Seconds between two times that an agent frees what dead '
        'services have claimed, so that living ones can. A dead service is '
        'noticed after [service] down_time, and this much later at most.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of this group on *conf*."""
    conf.register_opts(OPTS, group=GROUP)
