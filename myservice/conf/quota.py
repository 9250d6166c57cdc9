"""[quota]: the limits of projects that have no limit of their own."""

from typing import Any

from oslo_config import cfg
from oslo_config import types

from myservice.conf import ranges

GROUP = 'quota'

# The limits of the resources that myservice itself counts. They apply where
# the project, its quota class and default_limits have none.
BUILT_IN = {'resources': 100, 'gigabytes': 1000}

_LONGEST_NAME = 255


class _Limits(types.Dict):
    """Resource to limit; the tables can hold the names."""

    def __call__(self, value: Any) -> Any:
        limits = super().__call__(value)
        # A text comes from a file; values set by code are checked when they
        # are used.
        for name in limits if isinstance(value, str) else ():
            if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
                raise ValueError(f'{name!r:.100} is not a resource name')
        return limits


OPTS = [
    cfg.Opt(
        'default_limits',
        type=_Limits(ranges.Whole(-1, 2**63 - 1)),
        default=BUILT_IN,
        sample_default='resources:100,gigabytes:1000',
        mutable=True,
        help='The resources that have a quota, and their limits. A limit '
        'applies to projects for which neither the project nor its quota '
        'class has one. -1 means unlimited, 0 means none. The names '
        '"resources" and "gigabytes" are always counted; if they are left '
        'out, their limits are 100 and 1000. Other names are for resources '
        'that services reserve themselves.',
    ),
    cfg.StrOpt(
        'default_class',
        default='default',
        mutable=True,
        help='The quota class whose limits apply to projects that have no '
        'limit of their own.',
    ),
    cfg.Opt(
        'reservation_expire',
        type=ranges.Whole(1, ranges.TEN_YEARS),
        default=86400,
        mutable=True,
        help='Seconds after which a reservation that was neither committed '
        'nor rolled back is given back, unless the caller named another time.',
    ),
    cfg.Opt(
        'reservation_clean_interval',
        type=ranges.Whole(1, ranges.DAY),
        default=600,
        mutable=True,
        help='Seconds between two times that an agent gives back expired '
        'reservations. Only the figures that operators see depend on it: an '
        'expired reservation does not count against the quota.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of this group on *conf*."""
    conf.register_opts(OPTS, group=GROUP)
