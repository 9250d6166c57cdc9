"""Requests inside of requests: each has its own context and transaction."""

import asyncio
import threading
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from typing import Annotated
from typing import Any

import fastapi
import flask
import httpx2 as httpx
from fastapi import testclient
from oslo_context import context as oslo_context
from oslo_context import fixture as oslo_fixture
from werkzeug.middleware import dispatcher

from myservice import context
from myservice import db
from myservice import exception
from myservice.tests.unit.web import test_web
from myservice.web import fastapi as web_fastapi
from myservice.web import flask as web_flask
from myservice.web import wsgi

OUTER = {'X-Roles': 'admin', 'X-User-Id': 'outer'}
INNER = {'X-Roles': 'admin', 'X-User-Id': 'inner'}
GUEST = {'X-User-Id': 'guest'}
OK, PLAIN = '200 OK', [('Content-Type', 'text/plain')]


def who() -> Any:
    """Return who asks, and who the thread's log says that they are."""
    logged: Any = oslo_context.get_current()
    return flask.g.context.user_id, logged and logged.user_id


class NestedTestCase(test_web.WebTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(oslo_fixture.ClearRequestContext())
        # A request that would wait for itself does not wait for long.
        self.database.configure(sqlite_busy_timeout=1)
        self.seen: list[Any] = []


class TestFlask(NestedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.app = self.make_app('first')

    def make_app(self, name: str, **options: Any) -> flask.Flask:
        app = flask.Flask(name)
        web_flask.init_app(app, **options)

        @app.get('/who')
        @web_flask.no_transaction
        def see() -> Any:
            return [*who(), flask.g.context.is_admin]

        @app.get('/write/<host>')
        def write(host: str) -> str:
            test_web.write(flask.g.context, host)
            return host

        @app.get('/raise')
        def fail() -> str:
            raise ZeroDivisionError

        return app

    def serve(
        self, view: Callable[[], Any], app: flask.Flask | None = None
    ) -> Any:
        """Answer one request of the outer user by a view."""
        app = app or self.app
        app.add_url_rule('/outer', 'outer', view)
        return app.test_client().get('/outer', headers=OUTER)

    def check_around(
        self, inside: Callable[[], Any], app: flask.Flask | None = None
    ) -> Any:
        """Check that a request is as it was after what is done inside of it.

        :returns: what was returned there
        """
        results = []

        def view() -> str:
            before = flask.g.context
            transaction = before.transaction_slot.transaction
            results.append(inside())
            self.assertIs(before, flask.g.context)
            self.assertIs(before, flask.g.get('context'))
            self.assertIn('context', flask.g)
            self.assertEqual(('outer', 'outer'), who())
            self.assertIs(True, flask.g.context.is_admin)
            self.assertIs(transaction, before.transaction_slot.transaction)
            test_web.write(flask.g.context, 'after')
            return ''

        self.assertEqual(200, self.serve(view, app).status_code)
        self.assertIn('after', self.hosts())
        self.check_at_rest()
        return results[0]

    def get(self, path: str, headers: Any = GUEST, app: Any = None) -> Any:
        return (app or self.app).test_client().get(path, headers=headers)

    def test_a_request_of_a_client_is_its_own(self) -> None:
        answer = self.check_around(lambda: self.get('/who').json)
        self.assertEqual(['guest', 'guest', False], answer)

    def test_its_writes_are_its_own(self) -> None:
        def inside() -> None:
            self.get('/write/inside', INNER)
            # It has committed, and the one around it has not.
            self.seen.append(self.hosts())

        self.check_around(inside)
        self.assertEqual([['inside']], self.seen)
        self.assertEqual(['after', 'inside'], self.hosts())

    def test_it_may_fail_alone(self) -> None:
        for path, status in (('/raise', 500), ('/nowhere', 404)):
            self.app = self.make_app(path)
            answer = self.check_around(lambda path=path: self.get(path))
            self.assertEqual(status, answer.status_code)
            with db.api.transaction(self.context):
                (row,) = db.api.service_get_all(self.context)
                db.api.service_destroy(self.context, row.id)

    def test_so_may_the_one_around_it(self) -> None:
        def view() -> str:
            self.get('/write/inside', INNER)
            test_web.write(flask.g.context, 'after')
            raise ZeroDivisionError

        self.assertEqual(500, self.serve(view).status_code)
        self.assertEqual(['inside'], self.hosts())
        self.check_at_rest()

    def test_a_client_in_a_block_is_its_own_until_the_end_of_it(self) -> None:
        def inside() -> Any:
            with self.app.test_client() as client:
                client.get('/who', headers=GUEST)
                self.assertEqual('guest', flask.g.context.user_id)
                self.assertEqual('guest', flask.request.headers['X-User-Id'])

        self.check_around(inside)

    def test_a_context_that_is_only_pushed_is_that_of_the_view(self) -> None:
        def inside() -> Any:
            with self.app.test_request_context('/who', headers=GUEST):
                test_web.write(flask.g.context, 'mail')
                self.assertIn('context', flask.g)
                return flask.render_template_string(
                    'from {{ g.context.user_id }}, see {{ url_for("see") }}'
                )

        answer = self.check_around(inside)
        self.assertEqual('from outer, see /who', answer)
        self.assertEqual(['after', 'mail'], self.hosts())

    def test_once_its_functions_have_run_it_is_its_own(self) -> None:
        def inside() -> Any:
            with self.app.test_request_context('/who', headers=GUEST):
                self.app.preprocess_request()
                seen = *who(), flask.g.context.is_admin
                self.app.process_response(flask.Response())
                return seen

        self.assertEqual(('guest', 'guest', False), self.check_around(inside))

    def test_what_it_had_begun_is_rolled_back(self) -> None:
        def inside() -> None:
            with self.app.test_request_context('/write/x', headers=INNER):
                self.app.preprocess_request()
                test_web.write(flask.g.context, 'inside')

        self.check_around(inside)
        self.assertEqual(['after'], self.hosts())

    def test_what_a_pushed_one_is_given_is_its_own(self) -> None:
        mine = context.get_admin_context()

        def inside() -> Any:
            with self.app.test_request_context():
                flask.g.context = mine
                return flask.g.context

        self.assertIs(mine, self.check_around(inside))

    def test_a_pushed_application_changes_nothing(self) -> None:
        def inside() -> Any:
            with self.app.app_context():
                return [*who(), flask.g.get('other', 'none')]

        self.assertEqual(['outer', 'outer', 'none'], self.check_around(inside))

    def test_the_same_environment_makes_another_request(self) -> None:
        def answer(environ: Any) -> Any:
            started: list[str] = []
            environ['PATH_INFO'] = '/who'
            body = self.app.wsgi_app(
                environ, lambda status, *_: started.append(status)
            )
            return started, b''.join(body)

        for copied in (False, True):

            def inside(copied: bool = copied) -> Any:
                environ = flask.request.environ
                return answer(environ.copy() if copied else environ)

            self.app = self.make_app(f'copied {copied}')
            ((status,), body) = self.check_around(inside)
            self.assertEqual(OK, status)
            self.assertIn(b'outer', body)
            with db.api.transaction(self.context):
                (row,) = db.api.service_get_all(self.context)
                db.api.service_destroy(self.context, row.id)

    def test_two_applications_keep_their_roles_apart(self) -> None:
        other = self.make_app('second', admin_roles=['operator'])

        def inside() -> Any:
            inner = self.get('/who', INNER, other).json
            operator = {**INNER, 'X-Roles': 'operator'}
            return inner, self.get('/who', operator, other).json

        self.assertEqual(
            (['inner', 'inner', False], ['inner', 'inner', True]),
            self.check_around(inside),
        )

    def test_three_deep(self) -> None:
        @self.app.get('/deeper')
        def deeper() -> Any:
            before = [*who()]
            deepest = self.get('/who', GUEST).json
            return [before, deepest, [*who()]]

        answer = self.check_around(lambda: self.get('/deeper', INNER).json)
        self.assertEqual(
            [
                ['inner', 'inner'],
                ['guest', 'guest', False],
                ['inner', 'inner'],
            ],
            answer,
        )

    def test_who_aborts_early_is_not_the_one_around(self) -> None:
        app = flask.Flask('early')

        @app.before_request
        def know_guests() -> None:
            if flask.request.headers['X-User-Id'] == 'guest':
                flask.abort(401)

        web_flask.init_app(app)

        @app.errorhandler(401)
        def refuse(_: Any) -> Any:
            asking = flask.g.get('context')
            return [asking and asking.user_id], 401

        answer = self.check_around(lambda: self.get('/', app=app).json, app)
        self.assertEqual([None], answer)

    def test_a_stream_inside_is_its_own_to_its_end(self) -> None:
        def stream() -> Iterator[str]:
            yield str(flask.g.context.user_id)
            test_web.write(flask.g.context, 'streamed')
            yield str(flask.g.context.user_id)

        @self.app.get('/stream')
        def inner() -> Any:
            return flask.Response(flask.stream_with_context(stream()))

        def inside() -> Any:
            answer = self.app.test_client().get('/stream', headers=INNER)
            return answer.text

        self.assertEqual('innerinner', self.check_around(inside))
        self.assertEqual(['after', 'streamed'], self.hosts())

    def test_a_copy_of_a_request_joins_it(self) -> None:
        def inside() -> None:
            @flask.copy_current_request_context
            def copied() -> None:
                self.seen.append(flask.g.context)
                test_web.write(flask.g.context, 'copy')

            thread = threading.Thread(target=copied)
            thread.start()
            thread.join()

            @flask.copy_current_request_context
            def again() -> None:
                test_web.write(flask.g.context, 'copy here')

            again()
            self.assertEqual([flask.g.context], self.seen)
            self.assertEqual([], self.hosts())

        self.check_around(inside)
        self.assertEqual(['after', 'copy', 'copy here'], self.hosts())

    def test_a_copy_that_outlives_its_request_is_by_itself(self) -> None:
        go_on = threading.Event()
        threads = []

        def view() -> str:
            @flask.copy_current_request_context
            def copied() -> None:
                go_on.wait(60)
                test_web.write(flask.g.context, 'late')

            test_web.write(flask.g.context, 'early')
            threads.append(threading.Thread(target=copied))
            threads[0].start()
            return ''

        self.assertEqual(200, self.serve(view).status_code)
        self.assertEqual(['early'], self.hosts())
        go_on.set()
        threads[0].join()
        self.assertEqual(['early', 'late'], self.hosts())
        self.check_at_rest()

    def test_a_function_that_fails_at_the_end_leaves_nothing_open(
        self,
    ) -> None:
        app = self.make_app('failing')
        app.testing = True
        blueprint = flask.Blueprint('blueprint', 'blueprint')
        kept = []

        @blueprint.teardown_request
        def fail_of_blueprint(_: Any) -> None:
            raise KeyError

        @app.teardown_request
        def fail(error: Any) -> None:
            if error is not None:
                raise KeyError

        @blueprint.get('/outer')
        def view() -> str:
            # Not by its garbage collection.
            kept.append(flask.g.context.transaction_slot.transaction)
            test_web.write(flask.g.context, 'undone')
            raise ZeroDivisionError

        app.register_blueprint(blueprint)
        self.assertRaises(KeyError, self.get, '/outer', OUTER, app)
        self.assertEqual([], self.hosts())
        self.check_at_rest()
        self.assertEqual(200, self.get('/who', app=app).status_code)
        self.check_around(
            lambda: self.assertRaises(KeyError, self.get, '/outer', INNER, app)
        )

    def test_blueprints_have_the_same(self) -> None:
        blueprint = flask.Blueprint('blueprint', 'blueprint')

        @blueprint.before_request
        def write() -> None:
            test_web.write(flask.g.context, flask.g.context.user_id)

        @blueprint.get('/blue')
        def blue() -> Any:
            return [*who()]

        self.app.register_blueprint(blueprint)
        answer = self.check_around(lambda: self.get('/blue', INNER).json)
        self.assertEqual(['inner', 'inner'], answer)
        self.assertEqual(['after', 'inner'], self.hosts())

    def test_init_app_again_changes_nothing(self) -> None:
        web_flask.init_app(self.app)
        web_flask.init_app(self.app, admin_roles=['Admin'])
        answer = self.check_around(lambda: self.get('/write/x', INNER))
        self.assertEqual(200, answer.status_code)
        self.assertEqual(['after', 'x'], self.hosts())

    def test_init_app_with_other_roles_is_refused(self) -> None:
        error = self.assertRaises(
            exception.InvalidInput,
            web_flask.init_app,
            self.app,
            admin_roles=['admin', 'operator'],
        )
        self.assertEqual('admin_roles', error.field)

    def test_where_nobody_asks_there_is_no_context(self) -> None:
        with self.app.app_context():
            self.assertFalse(hasattr(flask.g, 'context'))
            self.assertNotIn('context', flask.g)
            self.assertIsNone(flask.g.get('context'))
            flask.g.context = 'mine'
            self.assertEqual('mine', flask.g.context)
        with self.app.test_request_context(headers=OUTER):
            self.assertIsNone(flask.g.get('context'))
            flask.g.other = 1
            self.assertEqual((1, 1), (flask.g.other, flask.g.get('other')))

    def test_a_pushed_application_around_is_not_left_with_it(self) -> None:
        with self.app.app_context():
            self.get('/who')
            self.assertIsNone(flask.g.get('context'))

    def test_on_sqlite_an_inner_write_does_not_wait_for_its_own_request(
        self,
    ) -> None:
        def inside() -> Any:
            test_web.write(flask.g.context, 'before')
            self.app.testing = True
            try:
                return self.get('/write/inside', INNER)
            except exception.WouldWaitForItself as error:
                return error
            finally:
                self.app.testing = False

        answer = self.check_around(inside)
        if self.backend == 'sqlite':
            self.assertIsInstance(answer, exception.WouldWaitForItself)
            self.assertEqual(['after', 'before'], self.hosts())
        else:
            self.assertEqual(200, answer.status_code)
            self.assertEqual(['after', 'before', 'inside'], self.hosts())


class TestWSGI(NestedTestCase):
    def request(self, application: Any, **environ: Any) -> tuple[str, bytes]:
        """Do what a server does.

        :returns: the status, and the body
        """
        started: list[str] = []
        body = application(
            {'PATH_INFO': '/', **environ},
            lambda status, *_: started.append(status),
        )
        try:
            return started[-1], b''.join(body)
        finally:
            if hasattr(body, 'close'):
                body.close()

    def note(self, environ: Any) -> None:
        logged: Any = oslo_context.get_current()
        self.seen.append((environ[wsgi.CONTEXT].user_id, logged.user_id))

    def application(self, environ: Any, start_response: Any) -> Any:
        self.note(environ)
        if environ['PATH_INFO'] == '/error':
            start_response('404 Not Found', PLAIN)
            return [b'not found']
        path = environ['PATH_INFO'].strip('/')
        if path:
            test_web.write(environ[wsgi.CONTEXT].elevated(), path)
        start_response(OK, PLAIN)
        return [path.encode()]

    def around(
        self, inner: Any, make_environ: Callable[[Any], Any], **options: Any
    ) -> Any:
        """Return an application that makes a request to another one."""

        def application(environ: Any, start_response: Any) -> Any:
            mine = environ[wsgi.CONTEXT]
            status, body = self.request(inner, **make_environ(environ))
            self.assertIs(mine, environ[wsgi.CONTEXT])
            self.note(environ)
            test_web.write(mine.elevated(), 'after')
            start_response(OK, PLAIN)
            return [status.encode(), b' ', body]

        return wsgi.ContextMiddleware(application, **options)

    def test_a_request_inside_is_its_own(self) -> None:
        for transaction in (False, True):
            inner = wsgi.ContextMiddleware(
                self.application, transaction=transaction
            )
            for number, make_environ in enumerate(
                (
                    lambda _: {'HTTP_X_USER_ID': 'inner'},
                    lambda environ: environ | {'HTTP_X_USER_ID': 'inner'},
                )
            ):
                outer = self.around(
                    inner, make_environ, transaction=transaction
                )
                status, _ = self.request(outer, HTTP_X_USER_ID='outer')
                self.assertEqual(OK, status)
                self.assertEqual(
                    [('inner', 'inner'), ('outer', 'outer')], self.seen[-2:]
                )
                case = f'{transaction}, {number}'
                self.assertEqual(['after'], self.hosts(), case)
                self.check_at_rest()
                self.destroy_all()

    def destroy_all(self) -> None:
        for row in db.api.service_get_all(self.context):
            db.api.service_destroy(self.context, row.id)

    def test_an_error_page_in_the_same_environment(self) -> None:
        inner = wsgi.ContextMiddleware(
            self.application, transaction=True, rollback_from=400
        )

        def error_page(environ: Any, start_response: Any) -> Any:
            mine = environ[wsgi.CONTEXT]
            environ['PATH_INFO'] = '/error'
            body = inner(environ, lambda status, *_: None)
            self.assertIs(mine, environ[wsgi.CONTEXT])
            self.note(environ)
            test_web.write(mine.elevated(), 'kept')
            start_response(OK, PLAIN)
            return body

        outer = wsgi.ContextMiddleware(error_page, transaction=True)
        self.assertEqual(
            (OK, b'not found'), self.request(outer, HTTP_X_USER_ID='u')
        )
        self.assertEqual([('u', 'u'), ('u', 'u')], self.seen)
        self.assertEqual(['kept'], self.hosts())
        self.check_at_rest()

    def test_one_around_the_other(self) -> None:
        for first in (False, True):
            for second in (False, True):
                application = wsgi.ContextMiddleware(
                    wsgi.ContextMiddleware(
                        self.application, transaction=second
                    ),
                    transaction=first,
                )
                self.assertEqual(
                    (OK, b'twice'),
                    self.request(application, PATH_INFO='twice'),
                )
                self.assertEqual(['twice'], self.hosts())
                self.check_at_rest()
                self.destroy_all()

    def test_one_application_mounted_twice(self) -> None:
        mounted = wsgi.ContextMiddleware(self.application, transaction=True)
        application = dispatcher.DispatcherMiddleware(
            mounted, {'/one': mounted, '/two': mounted}
        )
        for prefix, user in (('/one', 'u1'), ('/two', 'u2'), ('', 'u3')):
            self.request(
                application,
                PATH_INFO=f'{prefix}/{user}',
                HTTP_X_USER_ID=user,
            )
        self.assertEqual(['u1', 'u2', 'u3'], self.hosts())
        self.assertEqual([('u1', 'u1'), ('u2', 'u2'), ('u3', 'u3')], self.seen)

    def test_what_raises_inside_leaves_the_outer_as_it_was(self) -> None:
        def fails(environ: Any, start_response: Any) -> Any:
            test_web.write(environ[wsgi.CONTEXT].elevated(), 'undone')
            raise ZeroDivisionError

        inner = wsgi.ContextMiddleware(fails, transaction=True)

        def application(environ: Any, start_response: Any) -> Any:
            self.assertRaises(
                ZeroDivisionError, self.request, inner, **environ
            )
            self.note(environ)
            start_response(OK, PLAIN)
            return [b'']

        outer = wsgi.ContextMiddleware(application, transaction=True)
        self.request(outer, HTTP_X_USER_ID='outer')
        self.assertEqual(([('outer', 'outer')], []), (self.seen, self.hosts()))
        self.check_at_rest()

    def test_flask_inside_of_the_middleware(self) -> None:
        app = flask.Flask('inside')
        web_flask.init_app(app)

        @app.get('/<host>')
        def view(host: str) -> Any:
            test_web.write(flask.g.context, host)
            return [*who(), flask.request.environ[wsgi.CONTEXT].user_id]

        client = app.test_client()
        app.wsgi_app = wsgi.ContextMiddleware(  # type: ignore[method-assign]
            app.wsgi_app, transaction=True
        )
        answer = client.get('/a', headers=OUTER)
        self.assertEqual(['outer', 'outer', 'outer'], answer.json)
        self.assertEqual(['a'], self.hosts())
        self.check_at_rest()

    def test_the_server_still_sees_the_context(self) -> None:
        environ: dict[str, Any] = {'PATH_INFO': '/'}
        application = wsgi.ContextMiddleware(self.application)
        application(environ, lambda *_: None)
        self.assertIsInstance(environ[wsgi.CONTEXT], context.RequestContext)


class TestFastAPI(NestedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.app = self.make_app()

    def make_app(self) -> fastapi.FastAPI:
        app = fastapi.FastAPI()

        @app.get('/who')
        def see(context: web_fastapi.Context) -> Any:
            return [context.user_id, context.is_admin]

        @app.get('/write/{host}')
        def write(context: web_fastapi.Transaction, host: str) -> Any:
            test_web.write(context, host)
            return [context.user_id, context.is_admin]

        return app

    def client(self) -> Any:
        return testclient.TestClient(self.app, raise_server_exceptions=False)

    def get(self, path: str, **headers: str) -> Any:
        return self.client().get(path, headers=OUTER | headers)

    def ask_in_loop(self, path: str) -> Any:
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(
            transport=transport, base_url='http://inside'
        ).get(path, headers=INNER)

    def test_a_request_inside_is_its_own(self) -> None:
        def inside(context: web_fastapi.Transaction, fail: bool) -> Any:
            transaction = context.transaction_slot.transaction
            answers = [
                self.client().get('/who', headers=GUEST).json(),
                self.client().get('/write/in', headers=INNER).json(),
            ]
            self.assertIs(transaction, context.transaction_slot.transaction)
            self.assertEqual(['in'], self.hosts())
            test_web.write(context, 'after')
            if fail:
                raise ZeroDivisionError
            return [answers, context.user_id]

        self.app.get('/sync/{fail}')(inside)
        answer = self.get('/sync/0').json()
        self.assertEqual(
            [[['guest', False], ['inner', True]], 'outer'], answer
        )
        self.assertEqual(['after', 'in'], self.hosts())
        self.check_at_rest()

    def test_so_it_is_in_the_same_loop(self) -> None:
        @self.app.get('/async')
        async def inside(context: web_fastapi.Transaction) -> Any:
            transaction = context.transaction_slot.transaction
            answer = (await self.ask_in_loop('/write/in')).json()
            self.assertIs(transaction, context.transaction_slot.transaction)
            await web_fastapi.run(test_web.write, context, 'after')
            return [answer, context.user_id]

        self.assertEqual([['inner', True], 'outer'], self.get('/async').json())
        self.assertEqual(['after', 'in'], self.hosts())
        self.check_at_rest()

    def test_if_all_make_requests_inside_all_go_on(self) -> None:
        @self.app.get('/async')
        async def inside(context: web_fastapi.Transaction) -> Any:
            arrived.append(1)
            if len(arrived) == 39:
                everybody.set()
            await everybody.wait()
            return (await self.ask_in_loop('/who-in-transaction')).json()

        @self.app.get('/who-in-transaction')
        def see(context: web_fastapi.Transaction) -> Any:
            return context.user_id

        arrived: list[int] = []
        everybody = asyncio.Event()

        async def all_at_once() -> Any:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(
                transport=transport, base_url='http://outside', timeout=None
            ) as client:
                return await asyncio.wait_for(
                    asyncio.gather(
                        *(
                            client.get('/async', headers=OUTER)
                            for _ in range(39)
                        )
                    ),
                    60,
                )

        answers = asyncio.run(all_at_once())
        self.assertEqual(
            {(200, 'inner')},
            {(answer.status_code, answer.json()) for answer in answers},
        )
        self.check_at_rest()

    def test_a_mounted_application_has_its_own_roles(self) -> None:
        mounted = self.make_app()
        mounted.state.admin_roles = ['operator']
        self.app.mount('/mounted', mounted)
        self.assertEqual(['outer', False], self.get('/mounted/who').json())
        operator = {'X-Roles': 'operator'}
        self.assertEqual(
            ['outer', True], self.get('/mounted/who', **operator).json()
        )
        self.assertEqual(['outer', False], self.get('/who', **operator).json())
        answer = self.get('/mounted/write/a', **operator)
        self.assertEqual((200, ['a']), (answer.status_code, self.hosts()))
        self.check_at_rest()

    def test_who_asks_twice_gets_the_same(self) -> None:
        @self.app.get('/twice')
        def twice(
            one: web_fastapi.Transaction,
            two: Annotated[
                Any,
                fastapi.Depends(web_fastapi.get_transaction, use_cache=False),
            ],
            three: web_fastapi.Context,
            four: Annotated[
                Any, fastapi.Depends(web_fastapi.get_context, use_cache=False)
            ],
        ) -> Any:
            test_web.write(four, 'a')
            return [one is two, one is three, one is four, self.hosts()]

        self.assertEqual([True, True, True, []], self.get('/twice').json())
        self.assertEqual(['a'], self.hosts())
        self.check_at_rest()

    def test_an_override_is_what_all_get(self) -> None:
        def override() -> Any:
            return context.RequestContext(
                'override', is_admin=True, overwrite=False
            )

        self.app.dependency_overrides[web_fastapi.get_context] = override
        self.assertEqual(['override', True], self.get('/write/a').json())
        self.assertEqual(['a'], self.hosts())
        self.check_at_rest()

    def test_a_context_that_requests_share_is_refused_to_the_inner(
        self,
    ) -> None:
        shared = context.get_admin_context()
        self.app.dependency_overrides[web_fastapi.get_context] = lambda: shared

        @self.app.get('/outer')
        def outer(context: web_fastapi.Transaction) -> Any:
            try:
                testclient.TestClient(self.app).get('/write/in')
            except exception.TransactionInUse as error:
                test_web.write(context, 'after')
                return str(error)

        self.assertIn('another request', self.get('/outer').json())
        self.assertEqual(['after'], self.hosts())
        self.assertEqual(200, self.get('/write/next').status_code)
        self.check_at_rest()

    def test_a_test_may_wrap_all_its_requests(self) -> None:
        shared = context.get_admin_context()
        self.app.dependency_overrides[web_fastapi.get_context] = lambda: shared

        def requests() -> None:
            with db.api.transaction(shared, handover=True):
                for path in ('/write/a', '/write/b'):
                    self.assertEqual(200, self.get(path).status_code)
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, requests)
        self.assertEqual([], self.hosts())
        self.check_at_rest()

    def test_a_websocket_is_one_transaction_if_it_asks_for_it(self) -> None:
        @self.app.websocket('/socket')
        async def socket(
            socket: fastapi.WebSocket, context: web_fastapi.Transaction
        ) -> None:
            await socket.accept()
            async for host in socket.iter_text():
                await web_fastapi.run(test_web.write, context, host)
                await socket.send_text(str(self.hosts()))
                if host == 'bad':
                    raise ZeroDivisionError

        for hosts, kept in ((['a', 'b'], ['a', 'b']), (['bad'], ['a', 'b'])):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                try:
                    with self.client().websocket_connect(
                        '/socket', headers=OUTER
                    ) as connected:
                        for host in hosts:
                            connected.send_text(host)
                            self.assertNotIn(host, connected.receive_text())
                except ZeroDivisionError:
                    self.assertEqual(['bad'], hosts)
            self.assertEqual(kept, self.hosts())
            self.check_at_rest()

    def test_flask_mounted_leaves_the_contexts_apart(self) -> None:
        app = flask.Flask('mounted')
        web_flask.init_app(app)
        app.add_url_rule('/', view_func=lambda: str(flask.g.context.user_id))

        @self.app.get('/outer')
        def outer(context: web_fastapi.Transaction) -> Any:
            answer = app.test_client().get('/', headers=INNER).text
            test_web.write(context, 'after')
            return [answer, context.user_id]

        self.assertEqual(['inner', 'outer'], self.get('/outer').json())
        self.assertEqual(['after'], self.hosts())
        self.check_at_rest()
