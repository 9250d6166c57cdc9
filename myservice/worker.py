"""Workers: what an agent does with a resource that is requested.

A worker is a class, named by an entry point of the group
``myservice.workers`` and chosen by ``[agent] worker``.
"""

import threading
from collections.abc import Mapping
from importlib import metadata
from typing import Any
from typing import Protocol

from oslo_config import cfg
from stevedore import driver
from stevedore import exception as stevedore_exception

from myservice import context
from myservice import db
from myservice import exception

GROUP = 'myservice.workers'


class Interrupted(Exception):
    """The work is not done; whoever claims the resource does it later."""


class Worker(Protocol):
    """Works on resources. Its class is called with the configuration.

    One object serves all threads of an agent.
    """

    def run(
        self,
        context: context.RequestContext,
        resource: Any,
        claim: db.api.Claim,
        stopped: threading.Event,
    ) -> Mapping[str, Any] | None:
        """Work on a resource.

        What it does outside of the database may be repeated by another agent,
        if this one is believed dead. Make a repetition harmless, or let the
        other side refuse a lower generation of the claim. What it writes into
        the database, it writes under the claim.

        :param context: an administrator's context, of this thread
        :param resource: the row
        :param claim: the claim under which it works
        :param stopped: is set when the agent ends: then give up soon
        :returns: the values for resource_update, as {'status': …}; None means
            the same as Interrupted
        :raises Interrupted: when the work is not done; the resource stays as
            it is. Any other error sets its status to 'error'
        """


class Wait:
    """The built-in worker: waits for a while.

    :param conf: the configuration
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._seconds = conf.agent.worker_seconds

    def run(
        self,
        context: context.RequestContext,
        resource: Any,
        claim: db.api.Claim,
        stopped: threading.Event,
    ) -> Mapping[str, Any] | None:
        """Wait, unless interrupted, and make the resource available."""
        if stopped.wait(self._seconds):
            raise Interrupted()
        return {'status': 'available'}


def load(conf: cfg.ConfigOpts) -> Worker:
    """Return a new worker of the kind that the configuration names.

    :param conf: the configuration
    :raises InvalidInput: when no worker has this name, or it cannot be loaded
    """
    name = conf.agent.worker
    known = sorted(metadata.entry_points(group=GROUP).names)
    if name not in known:
        raise exception.InvalidInput(
            field='[agent] worker',
            reason=f'there is no worker {name!r}, only '
            f'{", ".join(known) or "none"}',
        )
    try:
        found: Any = driver.DriverManager(GROUP, name).driver
    except (ImportError, stevedore_exception.NoUniqueMatch) as error:
        raise exception.InvalidInput(
            field='[agent] worker',
            reason=f'worker {name!r} cannot be loaded: {error}',
        ) from error
    worker: Worker = found(conf)
    return worker
