"""The agent: a process that registers as a service, lives, and works."""

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

# A beat may be late by one interval and a half before anyone is alarmed.
_SAFE_RATIO = 2.5

# How long one that lives may be silent: so many intervals, and seconds.
_LATE_RATIO = 1.5
_LATE_SECONDS = 1

# How often what no retry asks for any more is cleared away, in seconds.
_PURGE_INTERVAL = 3600


class SignalEvent:
    """An event that the handler of a signal may set, also during a wait.

    ``threading.Event`` has a lock, which the thread that the handler has
    interrupted may hold: it would wait for ever. So does who asks a
    ``SimpleQueue`` for what comes within microseconds, where CPython finds
    that they are over.
    """

    def __init__(self) -> None:
        self._is_set = False
        # Free while there is news.
        self._news = threading.Lock()
        self._news.acquire()

    def set(self) -> None:
        """Let one thread that waits go on, and none wait any more."""
        self._is_set = True
        self.wake()

    def wake(self) -> None:
        """Let one thread that waits, or waits next, go on."""
        # There may be news already.
        with contextlib.suppress(RuntimeError):
            self._news.release()

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def wait(self, timeout: float) -> bool:
        """Wait until it is set, or somebody wakes who waits.

        :param timeout: how many seconds at most
        :returns: whether it is set
        """
        if not self._is_set:
            self._news.acquire(timeout=max(0, timeout))
        return self._is_set


class Agent:
    """Registers a service, beats and works, and ends when told.

    :param conf: the configuration
    :param values: what it registers with: host, binary, topic, …
    :param replace: whether it takes the place of one that lives
    :param reload: reads the configuration again
    :raises InvalidInput: when there is no such worker as [agent] worker
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
        # Beside the others: while one of them takes long, dead services
        # would keep what they have claimed.
        self._take_over = periodic.PeriodicTasks(
            [(lambda: conf.agent.take_over_interval, _take_over)],
            self._guard,
            'take over',
        )

    @property
    def _interval(self) -> float:
        return float(self._conf.report_interval)

    def stop(self) -> None:
        """Let run() return, as soon as the workers have given up."""
        self._stopped.set()

    def reload(self) -> None:
        """Let run() read the configuration again, soon."""
        self._is_to_reload = True
        self._stopped.wake()

    def run(self) -> None:
        """Register, then beat and work until stop(), or until it has to end.

        A database that goes away is waited for; at the start, where it is
        likelier that the configuration is wrong, its error is raised.

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
        LOG.info('Service %s stops, as it was told.', service.id)

    def _look_at_configuration(self) -> None:
        # Whoever reads them logs them.
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
        """Beat and work until stop(), and until the workers have given up.

        :param service: the service, as it was registered
        """
        self._next_beat = time.monotonic() + self._interval
        self._periodic_tasks.start()
        self._take_over.start()
        self._work.start(service.id, service.registration)
        try:
            self._beat_until(self._stopped.wait, service)
            self._work.stop()
            # It lives as long as it holds claims.
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
        """Register, but in the place of no process that lives.

        One that was killed may have beaten a moment ago. Only a beat to come
        tells a living one from it, and is waited for.

        :returns: the service; None when stop() came first
        :raises ServiceAlive: when there is one that lives
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
                # A clock that was set back would be waited for too long.
                if beats or time.monotonic() > give_up:
                    raise
                if last_seen_at is None:
                    _log_wait(alive, silence)
                last_seen_at = alive.last_seen_at
            self._stopped.wait(min(1, self._interval / 4))
        return None

    def _unregister(self, service: Any) -> None:
        """Let others know at once that it ends; they would find out."""
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
        """Beat until something is over.

        :param over: waits for it so many seconds, and returns whether it is
        :param service: the service that lives, as it was registered
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
        'seconds for it to beat again, or to be known to be dead.',
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
