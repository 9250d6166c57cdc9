"""The work of an agent: resources are claimed, worked on, and given back."""

import logging
import random
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from oslo_config import cfg
from oslo_db import exception as db_exception

from myservice import context
from myservice import db
from myservice import exception
from myservice import threads
from myservice import worker

LOG = logging.getLogger(__name__)

# How long workers may take to give up, in seconds.
_GRACE = 10

# What a worker gets that is too late.
_REFUSALS = (exception.ClaimLost, exception.ResourceNotFound)

# With these it is the database that has failed, and not the worker.
_NO_FAULT_OF_THE_WORKER = (
    db_exception.DBConnectionError,
    db_exception.DBDeadlock,
    exception.CommitUnknown,
    exception.PoolTimeout,
    exception.ServerError,
)


class Work:
    """Works on what is requested, in [agent] concurrency threads.

    :param conf: the configuration, of which [agent] counts here
    :param make: called with conf, returns the worker; by default it is the
        one that [agent] worker names
    :param guard: starts the threads
    :raises InvalidInput: when there is no such worker
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        make: Callable[[cfg.ConfigOpts], worker.Worker] = worker.load,
        guard: threads.Guard | None = None,
    ) -> None:
        self._conf = conf.agent
        self._guard = guard or threads.Guard()
        self._worker = make(conf)
        self._stopped = threading.Event()
        self._end_of_grace = float('inf')
        self._threads: list[threading.Thread] = []
        self._registration: int | None = None
        # Whoever holds it may compare what is held with the database. Only
        # the threads of _run do, one call deep: no handler of a signal, which
        # the main thread runs, and no finalizer.
        self._claiming = threading.Lock()
        self._held: set[db.api.Claim] = set()
        self._in_doubt = False

    def start(self, service_id: str, registration: int | None = None) -> None:
        """Begin.

        :param service_id: the service that claims
        :param registration: that of this process; None is any
        """
        self._registration = registration
        self._threads = [
            self._guard.start(f'worker {number}', self._run, service_id)
            for number in range(self._conf.concurrency)
        ]

    def stop(self) -> None:
        """Begin no other work, and tell the workers to give up."""
        if not self._stopped.is_set():
            self._end_of_grace = time.monotonic() + _GRACE
            self._stopped.set()

    def wait(self, seconds: float) -> bool:
        """Wait until all threads have ended, or are waited for no longer.

        :param seconds: how long at most
        :returns: whether that is so
        """
        until = min(time.monotonic() + seconds, self._end_of_grace)
        for thread in self._threads:
            thread.join(max(0, until - time.monotonic()))
        alive = any(thread.is_alive() for thread in self._threads)
        return not alive or time.monotonic() >= self._end_of_grace

    def end(self) -> None:
        """Stop, wait, and give back what a worker does not let go of."""
        self.stop()
        self.wait(_GRACE)
        for claim in sorted(self._held):
            LOG.warning(
                'Resource %s, generation %s: the worker does not end, and '
                'the claim is given back without it.',
                claim.resource_id,
                claim.generation,
            )
            try:
                _give_back(context.get_admin_context(), claim)
            except db.api.DATABASE_ERRORS as error:
                LOG.warning(
                    'No claim can be given back now; others take them over '
                    'when this service is down: %s',
                    _first_line(error),
                )
                return

    def _run(self, service_id: str) -> None:
        ctx = context.get_admin_context()
        while not self._stopped.is_set():
            try:
                done = self._work_once(ctx, service_id)
            except (exception.ServiceNotFound, exception.ServiceReplaced):
                # The heartbeat finds that, too, and ends the process. What
                # other threads have claimed is lost already.
                LOG.warning('Service %s is gone: no more work.', service_id)
                self.stop()
                return
            except db.api.DATABASE_ERRORS as error:
                LOG.warning('Looking for work failed: %s', _first_line(error))
                done = False
            except Exception:
                # A thread would end here without a word.
                LOG.exception('Looking for work failed')
                done = False
            if not done:
                self._pause()

    def _pause(self) -> None:
        jitter = random.uniform(0.5, 1.5)  # noqa: S311
        self._stopped.wait(self._conf.poll_interval * jitter)

    def _work_once(self, ctx: context.RequestContext, service_id: str) -> bool:
        """Claim one resource, if there is one, and work on it.

        :returns: whether it makes sense to look for the next one at once
        """
        with self._claiming:
            claims = self._claim(ctx, service_id)
        done = False
        for claim in claims:
            done = self._work_on(ctx, claim)
        return done

    def _claim(
        self, ctx: context.RequestContext, service_id: str
    ) -> list[db.api.Claim]:
        if self._stopped.is_set():
            return []
        if self._in_doubt:
            self._free_unknown_claims(ctx, service_id)
        try:
            claims = db.api.resource_claim_next(
                ctx,
                service_id,
                {'status': 'requested'},
                limit=1,
                registration=self._registration,
            )
        except exception.CommitUnknown:
            self._in_doubt = True
            raise
        self._held.update(claims)
        return claims

    def _free_unknown_claims(
        self, ctx: context.RequestContext, service_id: str
    ) -> None:
        """Free what this service holds, and none of its threads works on.

        Nobody else would: the service lives. What it holds is that of this
        process as long as its registration holds, which a beat makes sure of
        until the end of the transaction.
        """
        self._in_doubt = False
        # Before it is read: what ends meanwhile is none of these.
        held = set(self._held)
        try:
            with db.api.transaction(ctx):
                db.api.service_heartbeat(ctx, service_id, self._registration)
                for row in db.api.resource_get_all(
                    ctx, {'service_id': service_id}
                ):
                    claim = db.api.Claim(
                        row.id,
                        service_id,
                        row.claim_generation or 0,
                        self._registration,
                    )
                    if claim not in held:
                        _give_back(ctx, claim)
        except Exception:
            self._in_doubt = True
            raise

    def _work_on(
        self, ctx: context.RequestContext, claim: db.api.Claim
    ) -> bool:
        """Work on a resource, write the result, and give the claim back."""
        values = refusal = None
        try:
            values = self._result(ctx, claim)
            if values is not None:
                self._write(ctx, claim, values)
            self._insist(db.api.resource_release, ctx, claim)
        except _REFUSALS as error:
            refusal = error
        except Exception:
            # In this order: see _free_unknown_claims.
            self._held.discard(claim)
            self._in_doubt = True
            raise
        self._held.discard(claim)
        if refusal:
            _log_refusal(claim, refusal)
        return values is not None

    def _result(
        self, ctx: context.RequestContext, claim: db.api.Claim
    ) -> Mapping[str, Any] | None:
        try:
            resource = db.api.resource_get(ctx, claim.resource_id)
            return self._worker.run(ctx, resource, claim, self._stopped)
        except _REFUSALS:
            raise
        except worker.Interrupted:
            LOG.info('Resource %s: interrupted.', claim.resource_id)
        except _NO_FAULT_OF_THE_WORKER as error:
            LOG.warning(
                'Resource %s is left for later: %s',
                claim.resource_id,
                _first_line(error),
            )
        # SystemExit would end the thread, and nothing but the thread.
        except (Exception, SystemExit):
            LOG.exception('Resource %s: the worker failed', claim.resource_id)
            return {'status': 'error'}
        return None

    def _write(
        self,
        ctx: context.RequestContext,
        claim: db.api.Claim,
        values: Mapping[str, Any],
    ) -> None:
        resource_id = claim.resource_id
        try:
            self._insist(
                db.api.resource_update, ctx, resource_id, values, claim=claim
            )
        except exception.InvalidInput:
            LOG.exception('Resource %s: the worker failed', resource_id)
            values = {'status': 'error'}
            self._insist(
                db.api.resource_update, ctx, resource_id, values, claim=claim
            )
        LOG.info(
            'Resource %s, generation %s: %s',
            resource_id,
            claim.generation,
            values,
        )

    def _insist(
        self, write: Callable[..., None], *args: Any, **kwargs: Any
    ) -> None:
        """Write, and again while the database is in trouble, until stopped.

        The result of the work would be lost otherwise. One that may have
        been written is written again: under one claim that is the same.
        """
        while True:
            try:
                return write(*args, **kwargs)
            except db.api.DATABASE_ERRORS as error:
                if self._stopped.is_set():
                    raise
                LOG.warning(
                    'A write failed, and is repeated: %s', _first_line(error)
                )
            self._pause()


def _give_back(ctx: context.RequestContext, claim: db.api.Claim) -> None:
    try:
        db.api.resource_release(ctx, claim)
    except exception.ClaimLost as error:
        refusal = error
    else:
        return
    # Here, as oslo.log appends the error to what is logged where it is caught.
    _log_refusal(claim, refusal)


def _log_refusal(claim: db.api.Claim, error: exception.MyServiceError) -> None:
    lost = isinstance(error, exception.ClaimLost)
    LOG.warning(
        'Resource %s, generation %s: the write was refused, as %s.',
        claim.resource_id,
        claim.generation,
        'the claim was lost' if lost else 'it was destroyed',
    )


def _first_line(error: Exception) -> str:
    return str(error).partition('\n')[0]
