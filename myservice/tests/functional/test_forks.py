"""Processes that fork: servers that load first, pools of workers, writers."""

import concurrent.futures
import http.client
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa

from myservice import conf
from myservice import context
from myservice import db
from myservice import servers
from myservice.db.sql.dialects import backend_of
from myservice.tests.functional import base

CONNECTION = 'MYSERVICE_TEST_OF_FORKS'

# In seconds; for what takes far less where nothing is wrong.
_LONG = 120


def configure(connection: str) -> None:
    conf.CONF([], project='myservice', default_config_files=[])
    conf.CONF.set_override('connection', connection, 'database')
    db.api.configure(conf.CONF)


def create(host: str) -> tuple[int, str, int]:
    """Create a service, read it, and say which connection that was on."""
    ctx = context.get_admin_context()
    with db.api.transaction(ctx) as session:
        made = db.api.service_create(ctx, {'host': host, 'binary': 'b'})
        found = db.api.service_get(ctx, made.id).host
        return os.getpid(), found, _connection_id(session)


def _connection_id(session: Any) -> int:
    names = {'mysql': 'connection_id()', 'postgresql': 'pg_backend_pid()'}
    name = names.get(backend_of(session.get_bind().dialect), '0')
    return int(session.scalar(sa.text(f'SELECT {name}')))


def preloaded() -> Any:
    """Return a WSGI application, which has used the database by then."""
    configure(os.environ[CONNECTION])
    create('master')

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response('200 OK', [])
        return [json.dumps(create(environ['PATH_INFO'][1:])).encode()]

    return application


def in_pools(connection: str) -> None:
    """Let children of each way of starting them work, in turn."""
    configure(connection)
    create('parent')
    for way in ('fork', 'spawn', 'forkserver'):
        pool = multiprocessing.get_context(way).Pool(
            2,
            configure if way != 'fork' else None,
            (connection,) * (way != 'fork'),
        )
        with pool:
            hosts = [f'{way}-{number}' for number in range(8)]
            for host, (pid, found, _) in zip(
                hosts, pool.map(create, hosts), strict=True
            ):
                if host != found or pid == os.getpid():
                    raise SystemExit(f'{host} got the answer for {found}')


def while_writing(connection: str) -> None:
    """Fork while threads write, and let the children write, too."""
    configure(connection)
    done = threading.Event()
    written = []

    def write(number: int) -> None:
        count = 0
        while not done.is_set():
            written.append(create(f'thread-{number}-{count}')[1])
            count += 1

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(20):
        child = os.fork()
        if child == 0:
            for count in range(5):
                create(f'child-{number}-{count}')
            os._exit(0)
        children.append(child)
        time.sleep(0.02)
    codes = [os.waitpid(child, 0)[1] for child in children]
    done.set()
    for thread in threads:
        thread.join()
    print(json.dumps({'codes': codes, 'written': written}))


class ForkTestCase(base.ServerTestCase):
    def run_function(self, name: str) -> str:
        """Run a function of this module in a process of its own."""
        module = 'myservice.tests.functional.test_forks'
        code = f'import sys, {module} as m; m.{name}(sys.argv[1])'
        process = subprocess.run(
            [sys.executable, '-c', code, self.database.connection],
            capture_output=True,
            text=True,
            timeout=_LONG,
            check=False,
        )
        self.assertEqual((0, ''), (process.returncode, process.stderr))
        return process.stdout

    def hosts(self) -> set[str]:
        return {row.host for row in db.api.service_get_all(self.context)}


class OnEachDatabase(ForkTestCase):
    def test_gunicorn_loads_the_application_before_it_forks(self) -> None:
        server = self.useFixture(Preloaded(self.database.connection))
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            hosts = [f'host-{number}' for number in range(100)]
            answers = list(threads.map(server.get, hosts))
        self.assertEqual(hosts, [found for _, found, _ in answers])
        self.assertEqual({*hosts, 'master'}, self.hosts())
        on: dict[int, set[int]] = {}
        for pid, _, connection_id in answers:
            on.setdefault(connection_id, set()).add(pid)
        if self.server_class is not None:
            for pids in on.values():
                self.assertEqual(1, len(pids), 'one connection for two')

    def test_multiprocessing_starts_its_children_in_each_way(self) -> None:
        self.run_function('in_pools')
        self.assertEqual(1 + 3 * 8, len(self.hosts()))

    def test_children_that_are_forked_while_threads_write(self) -> None:
        result = json.loads(self.run_function('while_writing'))
        self.assertEqual([0] * 20, result['codes'])
        children = {
            f'child-{number}-{count}'
            for number in range(20)
            for count in range(5)
        }
        self.assertEqual(children | set(result['written']), self.hosts())


class TestSQLite(OnEachDatabase):
    server_class = None


class TestMariaDB(OnEachDatabase):
    server_class = servers.MariaDB


class TestPostgreSQL(OnEachDatabase):
    server_class = servers.PostgreSQL


class Preloaded(plain_fixtures.Fixture):
    """gunicorn with three workers, which it forks once it has loaded.

    :param connection: the URL of the database
    """

    def __init__(self, connection: str) -> None:
        super().__init__()
        self._environment = os.environ | {CONNECTION: connection}

    def _setUp(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as listener:
            self.port = listener.getsockname()[1]
        self.process = subprocess.Popen(
            [
                *(sys.executable, '-m', 'gunicorn', '--preload'),
                *('--workers', '3', '--worker-class', 'gthread'),
                *('--threads', '4', '--log-level', 'critical'),
                f'--bind=127.0.0.1:{self.port}',
                'myservice.tests.functional.test_forks:preloaded()',
            ],
            env=self._environment,
        )
        self.addCleanup(self.process.wait, _LONG)
        self.addCleanup(self.process.terminate)
        until = time.monotonic() + _LONG
        while time.monotonic() < until:
            try:
                socket.create_connection(('127.0.0.1', self.port)).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise RuntimeError('gunicorn did not start')

    def get(self, path: str) -> Any:
        """Return the answer for a path."""
        connection = http.client.HTTPConnection(
            '127.0.0.1', self.port, timeout=_LONG
        )
        connection.request('GET', f'/{path}')
        return json.loads(connection.getresponse().read())
