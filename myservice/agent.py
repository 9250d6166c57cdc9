"""The agent: a process that registers as a service, lives, and works."""

import logging
import threading
import time
from collections.abc import Callable

from oslo_config import cfg

from myservice import context
from myservice import db
from myservice import exception
from myservice import periodic
from myservice import work

LOG = logging.getLogger(__name__)

# A beat may be late by one interval and a half before anyone is alarmed.
_SAFE_RATIO = 2.5

# How often what no retry asks for any more is cleared away, in seconds.
_PURGE_INTERVAL = 3600


class Agent:
    """Registers a service, beats and works, and ends when told.

    :param conf: the configuration
    :param values: what it registers with: host, binary, topic, …
    :raises InvalidInput: when there is no such worker as [agent] worker
    """

    def __init__(self, conf: cfg.ConfigOpts, values: dict[str, str]) -> None:
        self._interval = conf.service.report_interval
        self._down_time = conf.service.down_time
        self._values = values
        self._context = context.get_admin_context()
        self._stopped = threading.Event()
        self._next_beat = 0.0
        self._work = work.Work(conf)
        self._periodic_tasks = periodic.PeriodicTasks(
            [
                (_PURGE_INTERVAL, db.api.purge_operations),
                (_PURGE_INTERVAL, db.api.reservation_purge),
                (
                    conf.quota.reservation_clean_interval,
                    db.api.reservation_expire,
                ),
            ]
        )
        # Beside the others: while one of them takes long, dead services
        # would keep what they have claimed.
        self._take_over = periodic.PeriodicTasks(
            [(conf.agent.take_over_interval, _take_over)]
        )

    def stop(self) -> None:
        """Let run() return, as soon as the workers have given up."""
        self._stopped.set()

    def run(self) -> None:
        """Register, then beat and work until stop() or until destroyed.

        A database that goes away is waited for; at the start, where it is
        likelier that the configuration is wrong, its error is raised.

        :raises InvalidInput: when [quota] default_limits cannot be used
        :raises ServiceNotFound: when somebody destroyed the service
        """
        # Whoever reads them logs them.
        db.api.quota_get_defaults(self._context)
        if self._down_time < _SAFE_RATIO * self._interval:
            LOG.warning(
                '[service] down_time is %s and report_interval %s seconds: '
                'one late heartbeat will make this service count as down. '
                'Make down_time %s or more.',
                self._down_time,
                self._interval,
                _SAFE_RATIO * self._interval,
            )
        service = db.api.service_register(self._context, self._values)
        LOG.info('Registered as service %s.', service.id)
        self._next_beat = time.monotonic() + self._interval
        self._periodic_tasks.start()
        self._take_over.start()
        self._work.start(service.id)
        try:
            self._beat_until(self._stopped.wait, service.id)
            self._work.stop()
            # It lives as long as it holds claims.
            self._beat_until(self._work.wait, service.id)
        except exception.ServiceNotFound:
            LOG.error(
                'Service %s was destroyed; this process stops.', service.id
            )
            raise
        finally:
            self._work.end()
            self._take_over.stop()
            self._periodic_tasks.stop()
        LOG.info('Service %s stops, as it was told.', service.id)

    def _beat_until(
        self, over: Callable[[float], bool], service_id: str
    ) -> None:
        """Beat until something is over.

        :param over: waits for it so many seconds, and returns whether it is
        :param service_id: the service that lives
        """
        reached = True
        while not over(self._next_beat - time.monotonic()):
            due = max(self._next_beat, time.monotonic())
            self._next_beat = due + self._interval
            try:
                db.api.service_heartbeat(self._context, service_id)
            except periodic.DATABASE_ERRORS as error:
                reached = False
                LOG.warning(
                    'Heartbeat failed, the next is due in %s seconds: %s',
                    self._interval,
                    str(error).partition('\n')[0],
                )
            else:
                if not reached:
                    LOG.info('The database is back.')
                reached = True


def _take_over(ctx: context.RequestContext) -> None:
    freed = db.api.claims_take_over(ctx)
    if freed:
        LOG.info('Freed %s claims of services that are down.', freed)
