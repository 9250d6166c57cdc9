"""Web applications on real servers, under load: nothing left or mixed up.

64 clients at once send requests that are kept, raise, are refused, stream, or
hang up at one of three points. As a program it takes how many for each server
and, if not all are wanted, which tests::

    python -m myservice.tests.functional.test_web 100000 [TestSQLite ...]
"""

import collections
import contextlib
import http.client
import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import unittest
from collections.abc import Iterator
from typing import Any

import fastapi
import fixtures as plain_fixtures
import flask
import sqlalchemy as sa
from fastapi import responses

from myservice import conf
from myservice import db
from myservice import servers
from myservice.tests.functional import base
from myservice.web import fastapi as web_fastapi
from myservice.web import flask as web_flask
from myservice.web import wsgi

CONFIG = 'MYSERVICE_TEST_CONFIG'
CLIENTS = 64
POOL_SIZE, OVERFLOW = 4, 4

KEEP, RAISE, REFUSE, STREAM = 'keep', 'raise', 'refuse', 'stream'
UNREAD, UNFINISHED, CUT = 'unread', 'unfinished', 'cut'
# Of twenty requests, how many meet which fate.
FATES = list(
    collections.Counter(
        {
            KEEP: 11,
            RAISE: 2,
            REFUSE: 2,
            STREAM: 2,
            UNREAD: 1,
            UNFINISHED: 1,
            CUT: 1,
        }
    ).elements()
)
STATUSES = {KEEP: 200, STREAM: 200, RAISE: 500, REFUSE: 409}
# The host of rows that are never committed.
DOOMED = 'doomed'


class Watch:
    """Sees, in a server, what requests have in common and should not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, Any] = {}
        self.wrong: list[str] = []
        self.most = 0

    def enter(self, context: Any) -> None:
        """Note what a request has, and nobody else may have until it ends."""
        session = db.api.get_session(context)
        with self._lock:
            for thing in (context, context.transaction_slot, session):
                if id(thing) in self._held:
                    self.wrong.append(f'{context.user_id} shares {thing}')
                self._held[id(thing)] = thing

    def leave(self, context: Any) -> None:
        """Forget what the request has."""
        session = db.api.get_session(context)
        pools = db.api.statistics().pools.values()
        with self._lock:
            self.most = max(self.most, *(use['checked_out'] for use in pools))
            for thing in (context, context.transaction_slot, session):
                self._held.pop(id(thing), None)

    def report(self) -> dict[str, Any]:
        """Return what was seen, and what is in use now."""
        pools = db.api.statistics().pools.values()
        return {
            'wrong': self.wrong,
            'most': self.most,
            'requests': len(self._held) // 3,
            'checked_out': sum(use['checked_out'] for use in pools),
        }


WATCH = Watch()


def write(context: Any, number: str, fate: str) -> None:
    WATCH.enter(context)
    host = DOOMED if fate in (RAISE, REFUSE) else number
    db.api.service_create(context, {'host': host, 'binary': number})


def check(context: Any, number: str, fate: str) -> str:
    """Check that only this request sees its uncommitted row."""
    rows = db.api.service_get_all(context, {'host': DOOMED})
    seen = [row.binary for row in rows]
    if seen != ([number] if fate in (RAISE, REFUSE) else []):
        WATCH.wrong.append(f'{number} sees {seen}')
    WATCH.leave(context)
    if fate == RAISE:
        raise ZeroDivisionError
    return f'{context.user_id} {number}'


def stream(context: Any, text: str, number: str) -> Iterator[bytes]:
    """Make a body that is long, and reads what was committed before it."""
    for _ in range(8):
        yield b' ' * 65536
    row = db.api.service_get_by_host_and_binary(context, number, number)
    yield (text if row.binary == number else '').encode()


def configure() -> None:
    conf.CONF(['--config-file', os.environ[CONFIG]], project='myservice')


def wsgi_app() -> Any:
    configure()

    def application(environ: Any, start_response: Any) -> Any:
        if environ['PATH_INFO'] == '/':
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [json.dumps(WATCH.report()).encode()]
        context = environ[wsgi.CONTEXT]
        _, _, number, fate = environ['PATH_INFO'].split('/')
        write(context, number, fate)
        text = check(context, number, fate)
        status = '409 Conflict' if fate == REFUSE else '200 OK'
        start_response(status, [('Content-Type', 'text/plain')])
        if fate in (STREAM, CUT):
            return stream(context, text, number)
        return [text.encode()]

    return wsgi.ContextMiddleware(
        application, transaction=True, rollback_from=400
    )


def flask_app() -> Any:
    configure()
    app = flask.Flask(__name__)
    app.logger.disabled = True
    web_flask.init_app(app)
    app.add_url_rule('/', 'report', WATCH.report)

    @app.get('/<kind>/<number>/<fate>')
    def work(kind: str, number: str, fate: str) -> Any:
        context = flask.g.context
        write(context, number, fate)
        text = check(context, number, fate)
        if fate == REFUSE:
            flask.abort(409)
        if fate in (STREAM, CUT):
            return flask.Response(stream(context, text, number))
        return text

    return app


def fastapi_app() -> Any:
    configure()
    app = fastapi.FastAPI()
    app.add_api_route('/', WATCH.report)

    def respond(context: Any, text: str, number: str, fate: str) -> Any:
        if fate == REFUSE:
            raise fastapi.HTTPException(409)
        if fate in (STREAM, CUT):
            return responses.StreamingResponse(stream(context, text, number))
        return responses.PlainTextResponse(text)

    @app.get('/sync/{number}/{fate}')
    def in_thread(
        context: web_fastapi.Transaction, number: str, fate: str
    ) -> Any:
        write(context, number, fate)
        return respond(context, check(context, number, fate), number, fate)

    @app.get('/async/{number}/{fate}')
    async def in_loop(
        context: web_fastapi.Transaction, number: str, fate: str
    ) -> Any:
        await web_fastapi.run(write, context, number, fate)
        text = await web_fastapi.run(check, context, number, fate)
        return respond(context, text, number, fate)

    return app


GUNICORN = (
    *('gunicorn', '--workers', '1', '--worker-class', 'gthread'),
    *('--threads', '16', '--keep-alive', '60', '--log-level', 'critical'),
)
UVICORN = (
    *('uvicorn', '--factory', '--timeout-keep-alive', '60'),
    *('--log-level', 'critical'),
)


class WebServer(plain_fixtures.Fixture):
    """A server of an application of this module, in a process of its own.

    :param program: GUNICORN or UVICORN
    :param app: the name of the function that makes the application
    :param config: the path of the configuration file
    """

    def __init__(self, program: Any, app: str, config: str) -> None:
        super().__init__()
        self._command = [sys.executable, '-m', *program]
        self._app = f'myservice.tests.functional.test_web:{app}'
        self._environment = os.environ | {CONFIG: config}

    def _setUp(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as listener:
            self.port = listener.getsockname()[1]
        where = [f'--port={self.port}', self._app]
        if 'gunicorn' in self._command:
            where = [f'--bind=127.0.0.1:{self.port}', f'{self._app}()']
        self.process = subprocess.Popen(
            [*self._command, *where], env=self._environment
        )
        self.addCleanup(self.process.wait, 30)
        self.addCleanup(self.process.terminate)
        for _ in range(300):
            with contextlib.suppress(OSError):
                self.report()
                return
            time.sleep(0.1)
        raise RuntimeError(f'{self._command} did not start')

    def report(self) -> dict[str, Any]:
        """Return what the Watch in the server reports."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port)
        with contextlib.closing(connection):
            connection.request('GET', '/')
            report: dict[str, Any] = json.load(connection.getresponse())
            return report


class Client:
    """One of the clients: it sends requests, and counts what became of them.

    :param port: of the server
    """

    def __init__(self, port: int) -> None:
        self._address = ('127.0.0.1', port)
        self._connection = http.client.HTTPConnection(
            *self._address, timeout=60
        )
        self.met: list[tuple[str, str]] = []
        self.wrong: list[str] = []

    def send(self, number: int) -> None:
        """Send a request; its number says which."""
        fate = FATES[number % len(FATES)]
        kind = ('sync', 'async')[number // len(FATES) % 2]
        path = f'/{kind}/{number}/{fate}'
        headers = {'X-User-Id': f'user-{number}', 'X-Roles': 'admin'}
        if fate in STATUSES:
            self._send(path, headers, f'user-{number} {number}', fate)
        else:
            self._hang_up(path, headers, fate)
        self.met.append((fate, str(number)))

    def _send(
        self, path: str, headers: dict[str, str], text: str, fate: str
    ) -> None:
        self._connection.request('GET', path, headers=headers)
        response = self._connection.getresponse()
        body = response.read().decode()
        status = STATUSES[fate]
        if status == 500:
            # uvicorn closes it now, and did not say so.
            self._connection.close()
        if response.status != status or (
            status == 200 and body.strip() != text
        ):
            self.wrong.append(f'{path}: {response.status} {body.strip()}')

    def _hang_up(self, path: str, headers: dict[str, str], fate: str) -> None:
        lines = [
            f'GET {path} HTTP/1.1',
            'Host: localhost',
            *map(': '.join, headers.items()),
        ]
        if fate != UNFINISHED:
            lines += ['', '']
        with socket.create_connection(self._address, 60) as connection:
            connection.sendall('\r\n'.join(lines).encode())
            if fate == CUT:
                connection.recv(4096)
            # Close by a reset: the server finds out when it sends.
            connection.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)
            )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class WebLoad(base.ServerTestCase):
    """Requests of all fates, from many clients at once."""

    requests = 3000

    def write_pool_config(self) -> str:
        path = self.write_config()
        with open(path, 'a') as file:
            file.write(
                f'[database]\nmax_pool_size = {POOL_SIZE}\n'
                f'max_overflow = {OVERFLOW}\n'
            )
        return path

    def check(self, program: Any, app: str) -> None:
        server = self.useFixture(
            WebServer(program, app, self.write_pool_config())
        )
        started = time.monotonic()
        clients = self.load(server.port)
        seconds = time.monotonic() - started
        report = self.at_rest(server)
        met = collections.Counter(
            fate for client in clients for fate, _ in client.met
        )
        print(
            f'{app} on {self.backend}: {self.requests} requests in '
            f'{seconds:.1f} s, {self.requests / seconds:.0f} a second: '
            f'{dict(met)}; then {report}'
        )
        self.assertEqual([], [w for c in clients for w in c.wrong])
        self.assertEqual(self.requests, met.total())
        most = report.pop('most')
        self.assertTrue(0 < most <= POOL_SIZE + OVERFLOW, most)
        self.assertEqual(
            {'wrong': [], 'requests': 0, 'checked_out': 0}, report
        )
        self.check_rows(clients)

    def load(self, port: int) -> list[Client]:
        """Send the requests, each client the next one."""
        clients = [Client(port) for _ in range(CLIENTS)]
        numbers = itertools.count()

        def send(which: int) -> None:
            # One call of C code, so no two get the same number.
            while (number := next(numbers)) < self.requests:
                clients[which].send(number)

        self.assertEqual([None] * CLIENTS, self.in_threads(CLIENTS, send))
        for client in clients:
            client.close()
        return clients

    def at_rest(self, server: WebServer) -> dict[str, Any]:
        """Wait for the requests whose clients did not, and report."""
        give_up = time.monotonic() + 30
        while True:
            report = server.report()
            busy = report['requests'] or report['checked_out']
            if not busy or time.monotonic() > give_up:
                return report
            time.sleep(0.1)

    def check_rows(self, clients: list[Client]) -> None:
        """Check that what was answered by 200, and only that, is there."""
        numbers = collections.defaultdict(set)
        for fate, number in itertools.chain(*(c.met for c in clients)):
            numbers[fate].add(number)
        hosts = {row.host for row in db.api.service_get_all(self.context)}
        kept = numbers[KEEP] | numbers[STREAM]
        self.assertEqual(set(), kept - hosts)
        # Whether these were carried out, nobody can know.
        self.assertEqual(set(), hosts - kept - numbers[UNREAD] - numbers[CUT])
        # It was sent something, which is only so after the commit.
        self.assertEqual(set(), numbers[CUT] - hosts)


class OnEachServer(WebLoad):
    def test_wsgi_on_gunicorn(self) -> None:
        self.check(GUNICORN, 'wsgi_app')

    def test_flask_on_gunicorn(self) -> None:
        self.check(GUNICORN, 'flask_app')

    def test_fastapi_on_uvicorn(self) -> None:
        self.check(UVICORN, 'fastapi_app')


class TestSQLite(OnEachServer):
    server_class = None


class TestMariaDB(OnEachServer):
    server_class = servers.MariaDB

    def check(self, program: Any, app: str) -> None:
        """Check, too, how many connections the server has seen at once."""
        own = sa.create_engine(self.server.url, poolclass=sa.NullPool)
        with own.connect() as connection:
            connection.execute(sa.text('FLUSH STATUS'))
            super().check(program, app)
            _, most = connection.execute(
                sa.text("SHOW GLOBAL STATUS LIKE 'Max_used_connections'")
            ).one()
        # Ours; a pool for transactions, and one for calls outside of them.
        limit = 3 + 2 * (POOL_SIZE + OVERFLOW)
        self.assertTrue(int(most) <= limit, most)


class TestPostgreSQL(OnEachServer):
    server_class = servers.PostgreSQL


def main() -> None:
    """Run the tests with as many requests as the first argument says."""
    if len(sys.argv) > 1:
        WebLoad.requests = int(sys.argv.pop(1))
    os.environ.setdefault('OS_LOG_CAPTURE', '1')
    unittest.main(module='__main__', verbosity=2)


if __name__ == '__main__':
    main()
