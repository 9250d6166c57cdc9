"""What the web adapters share: contexts out of headers, and no imports."""

import subprocess
import sys
import threading
from typing import Any

from myservice import db
from myservice.tests import base
from myservice.web import request_transaction

FRAMEWORKS = ('flask', 'fastapi', 'starlette')


class WebTestCase(base.DatabaseTestCase):
    """A test of an application whose requests write services."""

    def hosts(self) -> list[str]:
        """Return what was committed, as another session sees it."""
        services = db.api.service_get_all(self.context)
        return sorted(service.host for service in services)

    def check_at_rest(self) -> None:
        """Check that no connection is left in anybody's hands."""
        for pool in db.api.statistics().pools.values():
            self.assertEqual(0, pool['checked_out'])


def write(context: Any, host: str) -> None:
    db.api.service_create(context, {'host': host, 'binary': 'web'})


def break_statement(context: Any) -> None:
    """Let a statement fail, and swallow what it raises."""
    session = db.api.get_session(context)
    with session.begin():
        try:
            session.connection().exec_driver_sql('SELECT nothing')
        except Exception:
            return


class TestContext(base.TestCase):
    def test_the_headers_say_who_asks(self) -> None:
        context = request_transaction.make_context(
            {
                'HTTP_X_USER_ID': 'u1',
                'HTTP_X_PROJECT_ID': 'p1',
                'HTTP_X_ROLES': 'member,reader',
            }
        )
        self.assertEqual(
            ('u1', 'p1', ['member', 'reader'], False),
            (
                context.user_id,
                context.project_id,
                context.roles,
                context.is_admin,
            ),
        )

    def test_only_roles_make_an_administrator(self) -> None:
        for environ, expected in (
            ({}, False),
            ({'HTTP_X_IS_ADMIN': 'true'}, False),
            ({'HTTP_X_ROLES': 'administrator'}, False),
            ({'HTTP_X_ROLES': 'member, Admin'}, True),
            (
                {'HTTP_X_ROLES': 'admin', 'HTTP_X_IS_ADMIN_PROJECT': 'False'},
                False,
            ),
        ):
            context = request_transaction.make_context(environ)
            self.assertIs(expected, context.is_admin, environ)

    def test_the_roles_of_administrators_are_an_argument(self) -> None:
        for role, expected in (('operator', True), ('admin', False)):
            context = request_transaction.make_context(
                {'HTTP_X_ROLES': role}, ['Operator']
            )
            self.assertIs(expected, context.is_admin, role)


class TestRequestTransaction(WebTestCase):
    def test_it_may_begin_and_end_in_different_threads(self) -> None:
        for host, commit in (('kept', True), ('undone', False)):
            opened = request_transaction.RequestTransaction(self.context)
            for function in (
                lambda host=host: write(self.context, host),
                lambda opened=opened, commit=commit: opened.end(commit),
            ):
                thread = threading.Thread(target=function)
                thread.start()
                thread.join()
        self.assertEqual(['kept'], self.hosts())
        self.check_at_rest()


class TestImports(base.TestCase):
    def imported(self, modules: str, names: tuple[str, ...]) -> str:
        """Return which of the names are imported by importing modules."""
        program = (
            f'import sys, {modules}\n'
            f'print([name for name in {names} if name in sys.modules])'
        )
        done = subprocess.run(
            [sys.executable, '-c', program],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def test_the_core_imports_no_framework(self) -> None:
        modules = 'myservice.db.api, myservice.cmd.agent'
        names = ('myservice.web', *FRAMEWORKS)
        self.assertEqual('[]\n', self.imported(modules, names))

    def test_the_middleware_imports_no_framework(self) -> None:
        self.assertEqual(
            '[]\n', self.imported('myservice.web.wsgi', FRAMEWORKS)
        )
