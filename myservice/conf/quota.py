"""[quota]: how much a project may have when nobody has said otherwise."""

from oslo_config import cfg
from oslo_config import types

GROUP = 'quota'

# The limits of what is counted by myservice itself, in a project for which
# neither itself, its quota class nor default_limits has another.
BUILT_IN = {'resources': 100, 'gigabytes': 1000}

OPTS = [
    cfg.Opt(
        'default_limits',
        type=types.Dict(types.Integer(min=-1, max=2**63 - 1)),
        default=BUILT_IN,
        sample_default='resources:100,gigabytes:1000',
        help='Resources that have a quota, each with the limit of a project '
        'for which neither itself nor its quota class has another. -1 is '
        'unlimited, 0 is nothing. What is left out and counted all the same '
        'keeps its built-in limit (resources 100, gigabytes 1000); any other '
        'name is for what services reserve by themselves.',
    ),
    cfg.StrOpt(
        'default_class',
        default='default',
        help='The quota class whose limits hold for the projects that have '
        'no limit of their own.',
    ),
    cfg.IntOpt(
        'reservation_expire',
        default=86400,
        min=1,
        help='Seconds after which a reservation that was neither committed '
        'nor rolled back is given back, where the caller did not say.',
    ),
    cfg.IntOpt(
        'reservation_clean_interval',
        default=600,
        min=1,
        help='Seconds between two times that an agent gives back what has '
        'expired. Nothing depends on it but the figures that operators see: '
        'a reservation that is overdue keeps no project from its quota.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of this group on *conf*."""
    conf.register_opts(OPTS, group=GROUP)
