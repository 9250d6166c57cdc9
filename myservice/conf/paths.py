"""[DEFAULT]: where myservice keeps its files."""

from oslo_config import cfg

GROUP = 'DEFAULT'

OPTS = [
    cfg.StrOpt(
        'state_path',
        default='/var/lib/myservice',
        help='Directory of the files that myservice keeps: the default '
        'SQLite database lives in it. "myservice-manage db sync" creates it.',
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the options of this group on *conf*."""
    conf.register_opts(OPTS)
