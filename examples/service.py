"""A small web service on myservice: services, and quotas of projects.

::

    python examples/service.py --config-file examples/service.conf

It trusts the headers that name the caller (X-Roles, X-Project-Id), so it
listens on loopback: put authentication in front of it.
"""

from typing import Any

import fastapi
import uvicorn
from fastapi import responses
from oslo_config import cfg

from myservice import conf
from myservice import db
from myservice import exception
from myservice.db import migration
from myservice.web.fastapi import Context
from myservice.web.fastapi import Transaction
from myservice.web.fastapi import run

OPTS = [
    cfg.HostAddressOpt('listen', default='127.0.0.1', help='Where to listen.'),
    cfg.PortOpt('port', default=8080, help='On which port to listen.'),
]

# The first class that fits decides.
STATUSES: list[tuple[type[Exception], int]] = [
    (exception.InvalidInput, 400),
    (exception.Forbidden, 403),
    (exception.NotFound, 404),
    (exception.OverQuota, 413),
    (exception.Conflict, 409),
    # A repetition could do it twice.
    (exception.CommitUnknown, 500),
    # The errors of the database that remain after all retries.
    *((kind, 503) for kind in db.api.DATABASE_ERRORS),
    (exception.MyServiceError, 500),
]

app = fastapi.FastAPI(title='myservice')


def answer_error(_: fastapi.Request, error: Exception) -> fastapi.Response:
    """Answer with the status and the message of an error."""
    status = next(code for kind, code in STATUSES if isinstance(error, kind))
    return responses.JSONResponse({'error': str(error)}, status)


for kind, _status in STATUSES:
    app.add_exception_handler(kind, answer_error)


@app.get('/services')
async def list_services(
    context: Context, limit: int = 100, marker: str | None = None
) -> list[dict[str, Any]]:
    """List one page of services."""
    rows: Any = await run(
        db.api.service_get_all, context, limit=limit, marker=marker
    )
    names = ('id', 'host', 'binary', 'is_up', 'last_seen_at')
    return [{name: row[name] for name in names} for row in rows]


@app.post('/services', status_code=201)
def register(context: Context, values: dict[str, Any]) -> dict[str, str]:
    """Register a service: host, binary and, if known, more."""
    return {'id': db.api.service_register(context, values).id}


@app.put('/services/{service_id}/heartbeat', status_code=204)
def heartbeat(context: Context, service_id: str) -> None:
    """Say that a service is alive."""
    db.api.service_heartbeat(context, service_id)


@app.delete('/services/{service_id}', status_code=204)
def destroy(context: Context, service_id: str) -> None:
    """Remove a service."""
    db.api.service_destroy(context, service_id)


@app.post('/reservations', status_code=201)
def reserve(
    context: Transaction, deltas: dict[str, int], commit: bool = False
) -> dict[str, list[str]]:
    """Reserve quota of the project, and commit it if told to."""
    reservations = db.api.quota_reserve(context, deltas)
    if commit:
        db.api.reservation_commit(context, reservations)
    return {'reservations': reservations}


def main() -> None:
    """Read the configuration, create the tables, and serve."""
    conf.CONF.register_cli_opts(OPTS)
    conf.CONF(project='myservice')
    migration.sync()
    uvicorn.run(app, host=conf.CONF.listen, port=conf.CONF.port)


if __name__ == '__main__':
    main()
