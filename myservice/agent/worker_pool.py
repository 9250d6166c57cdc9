"""The work of an agent: it claims resources, works on them, frees them."""

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

# Seconds that workers have to give up.
_GRACE = 10

# The errors that a worker gets when it is too late.
_REFUSALS = (exception.ClaimLost, exception.ResourceNotFound)

# With these errors the database has failed, and not the worker.
_NO_FAULT_OF_THE_WORKER = (
    db_exception.DBConnectionError,
    db_exception.DBDeadlock,
    exception.CommitUnknown,
    exception.PoolTimeout,
    exception.ServerError,
)


class Work:
    """Works on requested resources, in [agent] concurrency threads.

    :param conf: the configuration; [agent] is used
    :param make: called with conf, returns the worker; the default makes the
        one that [agent] worker names
    :param guard: starts the threads
    :raises InvalidInput: when the worker does not exist
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
        # A thread takes it to compare the held claims with the database. Only
        # the threads of _run take it, and never twice: no signal handler,
        # which runs in the main thread, and no finalizer.
        self._claiming = threading.Lock()
        self._held: set[db.api.Claim] = set()
        self._in_doubt = False

    def start(self, service_id: str, registration: int | None = None) -> None:
        """Begin.

        :param service_id: the service that claims
        :param registration: that of this process; None means any
        """
        self._registration = registration
        self._threads = [
            self._guard.start(f'worker {number}', self._run, service_id)
            for number in range(self._conf.concurrency)
        ]

    def stop(self) -> None:
        """Start no other work, and tell the workers to give up."""
        if not self._stopped.is_set():
            self._end_of_grace = time.monotonic() + _GRACE
            self._stopped.set()

    def wait(self, seconds: float) -> bool:
        """Wait until all threads have ended, or their time to give up is over.

        :param seconds: how long at most
        :returns: whether one of these is the case
        """
        until = min(time.monotonic() + seconds, self._end_of_grace)
        for thread in self._threads:
            thread.join(max(0, until - time.monotonic()))
        alive = any(thread.is_alive() for thread in self._threads)
        return not alive or time.monotonic() >= self._end_of_grace

    def end(self) -> None:
        """Stop, wait, and release the claims of workers that do not end."""
        self.stop()
        self.wait(_GRACE)
        for claim in sorted(self._held):
            LOG.warning(
                'Resource %s, generation %s: the worker does not end, so its '
                'claim is released.',
                claim.resource_id,
                claim.generation,
            )
            try:
                _give_back(context.get_admin_context(), claim)
            except db.api.DATABASE_ERRORS as error:
                LOG.warning(
                    'Claims cannot be released now; they are freed when this '
                    'service counts as down: %s',
                    _first_line(error),
                )
                return

    def _run(self, service_id: str) -> None:
        ctx = context.get_admin_context()
        while not self._stopped.is_set():
            try:
                done = self._work_once(ctx, service_id)
            except (exception.ServiceNotFound, exception.ServiceReplaced):
                # The heartbeat notices that, too, and ends the process. The
                # claims of the other threads are lost already.
                LOG.warning('Service %s is gone: no more work.', service_id)
                self.stop()
                return
            except db.api.DATABASE_ERRORS as error:
                LOG.warning('Looking for work failed: %s', _first_line(error))
                done = False
            except Exception:
                # Otherwise the thread would end here.
                LOG.exception('Looking for work failed')
                done = False
            if not done:
                self._pause()

    def _pause(self) -> None:
        jitter = random.uniform(0.5, 1.5)  # noqa: S311
        self._stopped.wait(self._conf.poll_interval * jitter)

    def _work_once(self, ctx: context.RequestContext, service_id: str) -> bool:
        """Claim one resource, if there is one, and work on it.

        :returns: whether to look for the next one at once
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
        """Free the claims of this service that none of its threads works on.

        Nobody else frees them, as the service lives. They belong to this
        process as long as its registration is valid. A heartbeat ensures that
        until the end of the transaction.
        """
        self._in_doubt = False
        # Copied before the read, so that work that ends meanwhile is not
        # freed.
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
        # SystemExit would only end the thread.
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
        """Write, and repeat the write while the database fails, until stopped.

        Otherwise the result of the work would be lost. A write whose result is
        unknown is repeated, too: under the same claim that does no harm.
        """
        while True:
            try:
                return write(*args, **kwargs)
            except db.api.DATABASE_ERRORS as error:
                if self._stopped.is_set():
                    raise
                LOG.warning(
                    'A write failed and is repeated: %s', _first_line(error)
                )
            self._pause()


def _give_back(ctx: context.RequestContext, claim: db.api.Claim) -> None:
    try:
        db.api.resource_release(ctx, claim)
    except exception.ClaimLost as error:
        refusal = error
    else:
        return
    # Logged here, as oslo.log appends the caught error inside of "except".
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
