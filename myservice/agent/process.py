"""The agent: a process that registers, sends heartbeats, and works."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from oslo_config import cfg

from myservice import context
from myservice import db
from myservice import exception
from myservice import threads
from myservice.agent import periodic
from myservice.agent import worker_pool

LOG = logging.getLogger(__name__)

# A heartbeat may be late by one interval and a half without an alarm.
_SAFE_RATIO = 2.5

# How long a living process may be silent: 1.5 intervals and one second.
_LATE_RATIO = 1.5
_LATE_SECONDS = 1

# Seconds between two purges of rows that no retry needs any more.
_PURGE_INTERVAL = 3600


class SignalEvent:
    """An event that the handler of a signal may set, also during a wait.

    ``threading.Event`` has a lock. The interrupted thread may hold it, and
    then the handler would wait for ever. ``SimpleQueue`` is not safe either:
    if its timeout is microseconds, and CPython finds that they are over, it
    waits for ever.
    """

    def __init__(self) -> None:
        self._is_set = False
        # Free while there is something new to see.
        self._news = threading.Lock()
        self._news.acquire()

    def set(self) -> None:
        """Wake one waiting thread; from now on, no thread waits."""
        self._is_set = True
        self.wake()

    def wake(self) -> None:
        """Wake the thread that waits, or else the one that waits next."""
        # The lock may be free already.
        with contextlib.suppress(RuntimeError):
            self._news.release()

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def wait(self, timeout: float) -> bool:
        """Wait until it is set, or until wake() is called.

        :param timeout: at most this many seconds
        :returns: whether it is set
        """
        if not self._is_set:
            self._news.acquire(timeout=max(0, timeout))
        return self._is_set


class Agent:
    """Registers a service, sends heartbeats, works, and ends when told.

    :param conf: the configuration
    :param values: what it registers with: host, binary, topic, …
    :param replace: whether it replaces a process that lives
    :param reload: reads the configuration again
    :raises InvalidInput: when the worker of [agent] worker does not exist
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        values: dict[str, str],
        replace: bool = False,
        reload: Callable[[], None] = lambda: None,
    ) -> None:
        self._replace = replace
        self._reload = reload
        self._is_to_reload = False
        self._conf = conf.service
        self._values = values
        self._context = context.get_admin_context()
        self._stopped = SignalEvent()
        self._next_beat = 0.0
        self._guard = threads.Guard(self.stop)
        self._work = worker_pool.Work(conf, guard=self._guard)
        self._periodic_tasks = periodic.PeriodicTasks(
            [
                (lambda: _PURGE_INTERVAL, db.api.purge_operations),
                (lambda: _PURGE_INTERVAL, db.api.reservation_purge),
                (
                    lambda: conf.quota.reservation_clean_interval,
                    db.api.reservation_expire,
                ),
            ],
            self._guard,
        )
        # In its own thread: while another task takes long, dead services would
        # keep their claims.
        self._take_over = periodic.PeriodicTasks(
            [(lambda: conf.agent.take_over_interval, _take_over)],
            self._guard,
            'take over',
        )

    @property
    def _interval(self) -> float:
        return float(self._conf.report_interval)

    def stop(self) -> None:
        """Make run() return, as soon as the workers have given up."""
        self._stopped.set()

    def reload(self) -> None:
        """Make run() read the configuration again, soon."""
        self._is_to_reload = True
        self._stopped.wake()

    def run(self) -> None:
        """Register, then work until stop() or a failure, sending heartbeats.

        If the database goes away later, the agent waits for it. If it is away
        at the start, its error is raised, as a wrong configuration is
        likelier.

        :raises InvalidInput: when [quota] default_limits cannot be used
        :raises ServiceAlive: when another process is registered, and lives
        :raises ServiceNotFound: when somebody destroyed the service
        :raises ServiceReplaced: when another process has registered since
        :raises ThreadFailed: when one of its threads failed
        """
        self._look_at_configuration()
        service = self._register()
        if service is None:
            LOG.info('This process stops before it has registered.')
            return
        LOG.info(
            'Registered as service %s, registration %s.',
            service.id,
            service.registration,
        )
        self._live(service)
        self._unregister(service)
        self._guard.check()
        LOG.info('Service %s stops, as requested.', service.id)

    def _look_at_configuration(self) -> None:
        # To read the limits is enough: that logs what is wrong with them.
        db.api.quota_get_defaults(self._context)
        if self._conf.down_time < _SAFE_RATIO * self._interval:
            LOG.warning(
                '[service] down_time is %s and report_interval %s seconds: '
                'one late heartbeat will make this service count as down. '
                'Make down_time %s or more.',
                self._conf.down_time,
                self._interval,
                _SAFE_RATIO * self._interval,
            )

    def _reload_if_told(self) -> None:
        if not self._is_to_reload:
            return
        self._is_to_reload = False
        self._reload()
        self._look_at_configuration()
        self._next_beat = min(
            self._next_beat, time.monotonic() + self._interval
        )
        for tasks in (self._periodic_tasks, self._take_over):
            tasks.wake()

    def _live(self, service: Any) -> None:
        """Work until stop(), and until the workers have given up.

        :param service: the service, as it was registered
        """
        self._next_beat = time.monotonic() + self._interval
        self._periodic_tasks.start()
        self._take_over.start()
        self._work.start(service.id, service.registration)
        try:
            self._beat_until(self._stopped.wait, service)
            self._work.stop()
            # Send heartbeats as long as it holds claims.
            self._beat_until(self._work.wait, service)
        except exception.ServiceNotFound:
            LOG.error(
                'Service %s was destroyed; this process stops.', service.id
            )
            raise
        except exception.ServiceReplaced:
            LOG.error(
                'Service %s was replaced; this process stops.', service.id
            )
            raise
        finally:
            self._work.end()
            self._take_over.stop()
            self._periodic_tasks.stop()

    def _register(self) -> Any:
        """Register, unless a living process is registered.

        A process that was killed may have sent a heartbeat a moment ago. Only
        another heartbeat shows that a process lives, so wait for one.

        :returns: the service; None when stop() came first
        :raises ServiceAlive: when another process lives
        """
        if self._replace:
            return db.api.service_register(self._context, self._values)
        silence = _LATE_RATIO * self._interval + _LATE_SECONDS
        give_up = time.monotonic() + 2 * silence
        last_seen_at = None
        while not self._stopped.is_set():
            try:
                return db.api.service_register(
                    self._context, self._values, only_if_silent_for=silence
                )
            except exception.ServiceAlive as alive:
                beats = last_seen_at not in (None, alive.last_seen_at)
                # If the clock was set back, the wait would be too long.
                if beats or time.monotonic() > give_up:
                    raise
                if last_seen_at is None:
                    _log_wait(alive, silence)
                last_seen_at = alive.last_seen_at
            self._stopped.wait(min(1, self._interval / 4))
        return None

    def _unregister(self, service: Any) -> None:
        """Tell others at once that it ends; else they notice it later."""
        try:
            db.api.service_unregister(
                self._context, service.id, service.registration
            )
        except (
            *db.api.DATABASE_ERRORS,
            exception.ServiceNotFound,
            exception.ServiceReplaced,
        ) as error:
            LOG.warning(
                'Service %s could not be unregistered: %s',
                service.id,
                str(error).partition('\n')[0],
            )

    def _beat_until(self, over: Callable[[float], bool], service: Any) -> None:
        """Send heartbeats until something is over.

        :param over: waits for it at most the given seconds, and returns
            whether it is over
        :param service: the service, as it was registered
        """
        reached = True
        while not over(self._next_beat - time.monotonic()):
            self._reload_if_told()
            if time.monotonic() < self._next_beat:
                continue
            due = max(self._next_beat, time.monotonic())
            self._next_beat = due + self._interval
            try:
                db.api.service_heartbeat(
                    self._context, service.id, service.registration
                )
            except db.api.DATABASE_ERRORS as error:
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


def _log_wait(alive: exception.ServiceAlive, seconds: float) -> None:
    LOG.warning(
        'Service %s, %s on host %s, was last seen at %s UTC: waiting up to %s '
        'seconds for a heartbeat, without which it counts as dead.',
        alive.service_id,
        alive.binary,
        alive.host,
        alive.last_seen_at,
        seconds,
    )


def _take_over(ctx: context.RequestContext) -> None:
    freed = db.api.claims_take_over(ctx)
    if freed:
        LOG.info('Freed %s claims of services that are down.', freed)
