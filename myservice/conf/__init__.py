"""The options of myservice, one module a group, on oslo.config's global CONF.

A program only has to call ``conf.CONF(['--config-file', path],
project='myservice')``: the database layer reads CONF at its first call.
"""

from oslo_config import cfg

from myservice import exception
from myservice.conf import agent
from myservice.conf import database
from myservice.conf import paths
from myservice.conf import quota
from myservice.conf import service

CONF = cfg.CONF

_MODULES = (paths, database, service, quota, agent)


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register every option of myservice on *conf*; safe to repeat."""
    for module in _MODULES:
        module.register_opts(conf)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return (group, options) pairs, for oslo-config-generator."""
    return [(module.GROUP, list(module.OPTS)) for module in _MODULES]


def check(conf: cfg.ConfigOpts) -> None:
    """Read every option of myservice, so that a wrong value is found at once.

    :param conf: the configuration
    :raises InvalidInput: for the first option whose value is not of its type,
        or out of its range
    """
    for module in _MODULES:
        in_group = conf if module.GROUP == 'DEFAULT' else conf[module.GROUP]
        for option in module.OPTS:
            if option.secret:
                # A URL: the engine checks it, without showing its password.
                continue
            try:
                in_group[option.dest]
            except ValueError as error:
                raise exception.InvalidInput(
                    field=f'[{module.GROUP}] {option.dest}',
                    # The outer message of oslo.config does not name the group.
                    reason=str(error.__context__ or error),
                ) from error


register_opts(CONF)
