"""The example over HTTP; from one database to another its ini file changes."""

import http.client
import json
import pathlib
import socket
import subprocess
import sys
import time
from typing import Any
from typing import ClassVar

import fixtures as plain_fixtures

import myservice
from myservice import context
from myservice import db
from myservice import fixtures
from myservice import servers
from myservice.tests import base

EXAMPLES = pathlib.Path(myservice.__file__).parents[1] / 'examples'
ADMIN = {'X-Roles': 'admin'}
MEMBER = {'X-Roles': 'member', 'X-Project-Id': 'p1'}


class Example(base.TestCase):
    """The program examples/service.py, on a database without tables."""

    server_class: ClassVar[type[servers.Server] | None]

    def start(self) -> None:
        directory = pathlib.Path(
            self.useFixture(plain_fixtures.TempDir()).path
        )
        connection = f'sqlite:///{directory}/example.sqlite'
        if self.server_class is not None:
            connection = self.useFixture(self.server_class()).url
        self.connection = connection
        config = directory / 'service.conf'
        shipped = (EXAMPLES / 'service.conf').read_text()
        line = 'connection = sqlite:////tmp/myservice-example.sqlite'
        self.assertIn(line, shipped)
        config.write_text(shipped.replace(line, f'connection = {connection}'))
        with socket.create_server(('127.0.0.1', 0)) as listener:
            self.port = listener.getsockname()[1]
        process = subprocess.Popen(
            [
                sys.executable,
                str(EXAMPLES / 'service.py'),
                f'--config-file={config}',
                f'--port={self.port}',
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(process.wait, 30)
        self.addCleanup(process.terminate)
        self.wait()

    def wait(self) -> None:
        for _ in range(300):
            try:
                socket.create_connection(('127.0.0.1', self.port)).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.1)
        self.fail('the example did not start')

    def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Any = None,
    ) -> tuple[int, Any]:
        """Send a request, and return its status and what it answers."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port)
        self.addCleanup(connection.close)
        kind = {'Content-Type': 'application/json'}
        connection.request(method, path, json.dumps(body), headers | kind)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text else None

    def check_services(self) -> None:
        values = {'host': 'h1', 'binary': 'worker'}
        status, answer = self.ask('POST', '/services', ADMIN, values)
        self.assertEqual(201, status)
        path = f'/services/{answer["id"]}'
        again = self.ask('POST', '/services', ADMIN, values)
        self.assertEqual((201, answer), again)
        self.assertEqual(
            (204, None), self.ask('PUT', f'{path}/heartbeat', ADMIN)
        )
        status, rows = self.ask('GET', '/services?limit=1', ADMIN)
        self.assertEqual(
            [('h1', 'worker', True, True)],
            [
                (r['host'], r['binary'], r['is_up'], bool(r['last_seen_at']))
                for r in rows
            ],
        )
        self.assertEqual((204, None), self.ask('DELETE', path, ADMIN))
        self.assertEqual((200, []), self.ask('GET', '/services', ADMIN))
        for method, gone in (
            ('DELETE', path),
            ('PUT', f'{path}/heartbeat'),
            ('GET', '/services?marker=nowhere'),
        ):
            self.assertEqual(404, self.ask(method, gone, ADMIN)[0], gone)

    def check_errors(self) -> None:
        for expected, method, path, headers, body in (
            (403, 'GET', '/services', MEMBER, None),
            (400, 'GET', '/services?limit=-1', ADMIN, None),
            (400, 'POST', '/services', ADMIN, {'host': 'h1'}),
            (400, 'POST', '/reservations', MEMBER, {'nonsense': 1}),
            (422, 'POST', '/services', ADMIN, ['h1']),
        ):
            status, answer = self.ask(method, path, headers, body)
            self.assertEqual(expected, status, path)
            self.assertTrue(answer)

    def check_quota(self) -> None:
        def reserve(query: str, amount: int) -> tuple[int, Any]:
            return self.ask(
                'POST', f'/reservations{query}', MEMBER, {'bandwidth': amount}
            )

        status, answer = reserve('?commit=true', 600)
        self.assertEqual((201, 1), (status, len(answer['reservations'])))
        status, answer = reserve('', 401)
        self.assertEqual(413, status)
        self.assertIn('p1 is over quota', answer['error'])
        self.assertEqual(201, reserve('', 400)[0])
        self.assertEqual(413, reserve('', 1)[0])
        self.useFixture(fixtures.Database(self.connection))
        admin = context.get_admin_context()
        self.assertEqual(['p1'], db.api.quota_usage_get_projects(admin))
        self.assertEqual({}, db.api.quota_usage_sync(admin, 'p1'))


class OnEachDatabase(Example):
    def test_it_does_what_it_promises(self) -> None:
        if not hasattr(self, 'server_class'):
            self.skipTest('for the classes that name a server')
        self.start()
        self.check_services()
        self.check_errors()
        self.check_quota()


class TestSQLite(OnEachDatabase):
    server_class = None


class TestMariaDB(OnEachDatabase):
    server_class = servers.MariaDB


class TestPostgreSQL(OnEachDatabase):
    server_class = servers.PostgreSQL
