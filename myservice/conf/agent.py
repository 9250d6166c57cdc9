"""[agent]: how an agent finds work, and which worker does it."""

from oslo_config import cfg

from myservice.conf import ranges

GROUP = 'agent'

OPTS = [
    cfg.StrOpt(
        'worker',
        default='wait',
        help='The worker that works on requested resources: the name of an '
        'entry point in the group myservice.workers. The built-in "wait" '
        'waits, then sets the status to available.',
    ),
    cfg.Opt(
        'worker_seconds',
        type=ranges.Real(0, ranges.DAY),
        default=1,
        help='Seconds that the built-in worker waits for each resource.',
    ),
    cfg.Opt(
        'poll_interval',
        type=ranges.Real(0.01, ranges.HOUR),
        default=1,
        mutable=True,
        help='Seconds until an agent that found no work looks for work again, '
        'on average: each wait is between half and one and a half times as '
        'long, so that agents do not look all at once.',
    ),
    cfg.Opt(
        'concurrency',
        type=ranges.Whole(0, 1000),
        default=1,
        help='The number of resources that an agent works on at the same '
        'time, each in its own thread. With 0 it works on none: it only sends '
        'heartbeats, and frees the claims of services that are down. Keep it '
        'below [database] max_pool_size + max_overflow.',
    ),
    cfg.Opt(
        'take_over_interval',
        type=ranges.Real(0.1, ranges.DAY),
        default=10,
        mutable=True,
        help='Seconds between two times that an agent frees the claims of '
        'services that are down, so that others can claim the resources. A '
        'dead service counts as down after [service] down_time; its claims '
        'are freed at most this much later.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of this group on *conf*."""
    conf.register_opts(OPTS, group=GROUP)
