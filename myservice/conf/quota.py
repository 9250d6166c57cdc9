"""[quota]: how much a project may have when nobody has said otherwise."""

from typing import Any

from oslo_config import cfg
from oslo_config import types

from myservice.conf import ranges

GROUP = 'quota'

# The limits of what is counted by myservice itself, in a project for which
# neither itself, its quota class nor default_limits has another.
BUILT_IN = {'resources': 100, 'gigabytes': 1000}

_LONGEST_NAME = 255


class _Limits(types.Dict):
    """Resource to limit; the names are such that tables hold them."""

    def __call__(self, value: Any) -> Any:
        limits = super().__call__(value)
        # Of a file; what code sets is looked at when it is used.
        for name in limits if isinstance(value, str) else ():
            if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
                raise ValueError(f'{name!r:.100} is no name of a resource')
        return limits


OPTS = [
    cfg.Opt(
        'default_limits',
        type=_Limits(ranges.Whole(-1, 2**63 - 1)),
        default=BUILT_IN,
        sample_default='resources:100,gigabytes:1000',
        mutable=True,
        help='Resources that have a quota, each with the limit of a project '
        'for which neither itself nor its quota class has another. -1 is '
        'unlimited, 0 is nothing. What is left out and counted all the same '
        'keeps its built-in limit (resources 100, gigabytes 1000); any other '
        'name is for what services reserve by themselves.',
    ),
    cfg.StrOpt(
        'default_class',
        default='default',
        mutable=True,
        help='The quota class whose limits hold for the projects that have '
        'no limit of their own.',
    ),
    cfg.Opt(
        'reservation_expire',
        type=ranges.Whole(1, ranges.TEN_YEARS),
        default=86400,
        mutable=True,
        help='Seconds after which a reservation that was neither committed '
        'nor rolled back is given back, where the caller did not say.',
    ),
    cfg.Opt(
        'reservation_clean_interval',
        type=ranges.Whole(1, ranges.DAY),
        default=600,
        mutable=True,
        help='Seconds between two times that an agent gives back what has '
        'expired. Nothing depends on it but the figures that operators see: '
        'a reservation that is overdue keeps no project from its quota.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of this group on *conf*."""
    conf.register_opts(OPTS, group=GROUP)
