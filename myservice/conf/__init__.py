"""The options of myservice, one module a group, on oslo.config's global CONF.

``conf.CONF(['--config-file', path], project='myservice')`` is all that a
program has to do: the database layer reads CONF at its first call.
"""

from oslo_config import cfg

from myservice.conf import agent
from myservice.conf import database
from myservice.conf import paths
from myservice.conf import quota
from myservice.conf import service

CONF = cfg.CONF

_MODULES = (paths, database, service, quota, agent)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register every option of myservice on *conf*; twice does no harm."""
    for module in _MODULES:
        module.register_opts(conf)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return (group, options) pairs, for oslo-config-generator."""
    return [(module.GROUP, list(module.OPTS)) for module in _MODULES]


register_opts(CONF)
