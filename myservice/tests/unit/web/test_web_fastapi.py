"""FastAPI, by Starlette's client: when requests commit, what they leave."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Annotated
from typing import Any

import fastapi
from fastapi import encoders
from fastapi import responses
from fastapi import testclient
from oslo_context import context as oslo_context

from myservice import db
from myservice import exception
from myservice.tests import factories
from myservice.tests.unit.web import test_web
from myservice.web import fastapi as web

ADMIN = {'X-Roles': 'admin', 'X-User-Id': 'u1'}


class TestFastAPI(test_web.WebTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.app = fastapi.FastAPI()
        # What had been committed when the response started.
        self.committed: list[str] | None = None
        self.seen: list[Any] = []

    async def watched(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message['type'] == 'http.response.start':
                self.committed = self.hosts()
            await send(message)

        await self.app(scope, receive, sending)

    def client(self, **options: Any) -> testclient.TestClient:
        options = {'raise_server_exceptions': False} | options
        return testclient.TestClient(self.watched, **options)

    def get(self, path: str = '/', **headers: str) -> Any:
        return self.client().get(path, headers=ADMIN | headers)

    def check_undone(self) -> None:
        self.assertEqual([], self.hosts())
        self.check_at_rest()

    def check_statuses(self, *expected: int) -> None:
        """Check what /sync and /async answer."""
        for path in ('/sync', '/async'):
            for status in expected:
                answer = self.get(f'{path}?status={status}')
                self.assertEqual(status, answer.status_code, path)

    def add_both(self, work: Any) -> None:
        """Add work(context, status) as a sync and as an async endpoint."""

        @self.app.get('/sync')
        def in_thread(context: web.Transaction, status: int) -> None:
            work(context, status)

        @self.app.get('/async')
        async def in_loop(context: web.Transaction, status: int) -> None:
            await web.run(work, context, status)

    def test_the_context_is_that_of_the_headers(self) -> None:
        @self.app.get('/')
        def endpoint(context: web.Context) -> Any:
            return [context.user_id, context.roles, context.is_admin]

        self.assertEqual(['u1', ['admin'], True], self.get().json())
        self.assertEqual([None, [], False], self.client().get('/').json())
        headers = [('X-Roles', 'a'), ('X-Roles', 'b')]
        answer = self.client().get('/', headers=headers)
        self.assertEqual([None, ['a', 'b'], False], answer.json())

    def test_a_name_that_only_looks_like_a_header_is_none(self) -> None:
        @self.app.get('/')
        def endpoint(context: web.Context) -> Any:
            return context.roles

        answer = self.client().get('/', headers={'X_Roles': 'admin'})
        self.assertEqual([], answer.json())

    def test_the_roles_of_administrators_are_state_of_the_application(
        self,
    ) -> None:
        @self.app.get('/')
        def endpoint(context: web.Context) -> Any:
            return context.is_admin

        self.app.state.admin_roles = ['operator']
        answers = [
            self.get(**{'X-Roles': role}).json()
            for role in ('admin', 'operator')
        ]
        self.assertEqual([False, True], answers)

    def test_a_websocket_has_a_context(self) -> None:
        @self.app.websocket('/socket')
        async def socket(
            socket: fastapi.WebSocket, context: web.Context
        ) -> None:
            await socket.accept()
            await socket.send_text(str(context.user_id))
            await socket.close()

        headers = {'X-User-Id': 'u1'}
        with self.client().websocket_connect(
            '/socket', headers=headers
        ) as connected:
            self.assertEqual('u1', connected.receive_text())

    def test_no_thread_keeps_the_context_of_a_request(self) -> None:
        @self.app.get('/')
        async def endpoint(context: web.Transaction) -> Any:
            kept = await web.run(oslo_context.get_current)
            return context in (kept, oslo_context.get_current())

        self.assertIs(False, self.get().json())

    def test_it_commits_before_the_response_starts(self) -> None:
        def work(context: Any, status: int) -> None:
            test_web.write(context, f'a{len(self.seen)}')
            test_web.write(context, f'b{len(self.seen)}')
            self.seen.append(self.hosts())

        self.add_both(work)
        self.check_statuses(200)
        self.assertEqual([[], ['a0', 'b0']], self.seen)
        self.assertEqual(['a0', 'a1', 'b0', 'b1'], self.committed)
        self.check_at_rest()

    def test_a_request_that_raised_leaves_nothing_open(self) -> None:
        def work(context: Any, status: int) -> None:
            test_web.write(context, 'a')
            raise ZeroDivisionError

        self.add_both(work)
        self.check_statuses(500)
        self.assertEqual([], self.committed)
        self.check_undone()

    def test_a_request_that_was_refused_is_rolled_back(self) -> None:
        def work(context: Any, status: int) -> None:
            test_web.write(context, 'a')
            raise fastapi.HTTPException(status)

        self.add_both(work)
        self.check_statuses(404, 409, 503)
        self.check_undone()

    def test_an_error_that_was_handled_is_rolled_back(self) -> None:
        def work(context: Any, status: int) -> None:
            test_web.write(context, 'a')
            db.api.service_get(context, 'nowhere')

        @self.app.exception_handler(exception.NotFound)
        def handle(_: Any, error: Exception) -> Any:
            return responses.JSONResponse(str(error), 404)

        self.add_both(work)
        self.check_statuses(404)
        self.check_undone()

    def test_a_commit_that_fails_is_a_500(self) -> None:
        def work(context: Any, status: int) -> None:
            test_web.write(context, 'a')
            test_web.break_statement(context)

        self.add_both(work)
        self.check_statuses(500)
        self.check_undone()

    def test_all_that_depend_on_it_share_one_transaction(self) -> None:
        threads = set()

        def note(context: Any) -> None:
            threads.add(threading.current_thread())
            self.seen.append(context.transaction_slot.transaction)

        def in_thread(context: web.Transaction) -> None:
            note(context)
            test_web.write(context, 'thread')

        async def in_loop(context: web.Transaction) -> None:
            note(context)
            await web.run(test_web.write, context, 'loop')

        @self.app.get('/')
        async def endpoint(
            context: web.Transaction,
            same: web.Context,
            one: Annotated[Any, fastapi.Depends(in_thread)],
            two: Annotated[Any, fastapi.Depends(in_loop)],
            fail: bool = False,
        ) -> None:
            note(same)
            await web.run(test_web.write, same, 'endpoint')
            if fail:
                raise ZeroDivisionError

        self.assertEqual(500, self.get('/?fail=true').status_code)
        self.assertEqual([], self.hosts())
        self.assertEqual(200, self.get().status_code)
        self.assertEqual(['endpoint', 'loop', 'thread'], self.committed)
        self.assertEqual([3, 3], [self.seen.count(t) for t in set(self.seen)])
        self.assertIn(len(threads), (2, 3, 4))
        self.check_at_rest()

    def test_without_a_dependency_there_is_no_transaction(self) -> None:
        @self.app.get('/')
        def endpoint(context: web.Context) -> None:
            self.seen.append(context.transaction_slot.transaction)
            test_web.write(context, 'a')
            raise ZeroDivisionError

        self.assertEqual(500, self.get().status_code)
        self.assertEqual(([None], ['a']), (self.seen, self.hosts()))

    def test_a_background_task_runs_without_a_transaction(self) -> None:
        def later(context: Any) -> None:
            self.seen.append(context.transaction_slot.transaction)
            self.seen.append(self.hosts())
            test_web.write(context, 'b')

        @self.app.get('/')
        def endpoint(
            context: web.Transaction, tasks: fastapi.BackgroundTasks
        ) -> None:
            test_web.write(context, 'a')
            tasks.add_task(later, context)

        self.assertEqual(200, self.get().status_code)
        self.assertEqual([None, ['a']], self.seen)
        self.assertEqual(['a', 'b'], self.hosts())
        self.check_at_rest()

    def test_a_stream_runs_without_a_transaction(self) -> None:
        def stream(context: Any) -> Iterator[str]:
            self.seen.append(context.transaction_slot.transaction)
            test_web.write(context, 'b')
            yield 'x'

        @self.app.get('/')
        def endpoint(context: web.Transaction) -> Any:
            test_web.write(context, 'a')
            return responses.StreamingResponse(stream(context))

        self.assertEqual('x', self.get().text)
        self.assertEqual(([None], ['a']), (self.seen, self.committed))
        self.assertEqual(['a', 'b'], self.hosts())
        self.check_at_rest()

    def test_a_request_that_was_cancelled_leaves_nothing_open(self) -> None:
        """Some servers cancel the task of a client that has hung up."""

        @self.app.get('/')
        async def endpoint(context: web.Transaction) -> None:
            await web.run(test_web.write, context, 'a')
            wrote.set()
            await asyncio.sleep(60)

        wrote = asyncio.Event()

        async def cancel() -> None:
            scope = {
                'type': 'http',
                'method': 'GET',
                'path': '/',
                'query_string': b'',
                'headers': [(b'x-roles', b'admin')],
            }
            task = asyncio.create_task(self.app(scope, None, None))
            await asyncio.wait_for(wrote.wait(), 10)
            task.cancel()
            await asyncio.wait([task])
            self.assertTrue(task.cancelled())

        asyncio.run(cancel())
        self.check_undone()

    def test_a_full_pool_leaves_threads_to_those_who_go_on(self) -> None:
        """60 requests, 40 threads, and connections for two."""
        self.database.configure(
            max_pool_size=2, max_overflow=0, pool_timeout=5
        )

        def first(context: web.Transaction, number: int) -> None:
            test_web.write(context, f'a{number}')

        @self.app.get('/{number}', dependencies=[fastapi.Depends(first)])
        def endpoint(context: web.Transaction, number: int) -> None:
            test_web.write(context, f'b{number}')

        with testclient.TestClient(self.app) as client:
            answers = self.in_threads(
                60, lambda number: client.get(f'/{number}', headers=ADMIN)
            )
        self.assertEqual(
            [200] * 60, [answer.status_code for answer in answers]
        )
        self.assertEqual(120, len(self.hosts()))
        self.check_at_rest()

    def test_a_transaction_does_not_wait_for_a_thread(self) -> None:
        """All of them may be waiting for its locks."""
        free = threading.Event()

        @self.app.get('/')
        async def endpoint(context: web.Transaction) -> list[bool]:
            waiting = [
                asyncio.create_task(web.run(free.wait, 5)) for _ in range(50)
            ]
            await asyncio.sleep(0.1)
            await web.run(test_web.write, context, 'a')
            free.set()
            return await asyncio.gather(*waiting)

        self.assertEqual([True] * 50, self.get().json())
        self.assertEqual(['a'], self.hosts())


class TestRows(test_web.WebTestCase):
    """A row is an object in an answer, and a list of rows a list of them."""

    def setUp(self) -> None:
        super().setUp()
        self.row = factories.create_service()
        self.app = fastapi.FastAPI()

    def answered(self, answer: Any, annotation: Any = None) -> Any:
        def endpoint() -> Any:
            return answer

        if annotation is None:
            del endpoint.__annotations__['return']
        else:
            endpoint.__annotations__['return'] = annotation
        self.app = fastapi.FastAPI()
        self.app.get('/')(endpoint)
        return testclient.TestClient(self.app).get('/').json()

    def test_an_endpoint_may_return_rows(self) -> None:
        row = self.row
        kind: Any = db.api.ServiceRow
        kinds: Any = list[db.api.ServiceRow]
        for made in (
            self.answered(row),
            self.answered([row])[0],
            self.answered({'service': row})['service'],
            self.answered(row, Any),
            self.answered([row], Any)[0],
            self.answered(row, kind),
            self.answered([row], kinds)[0],
            self.answered(dict(row), dict[str, Any]),
        ):
            self.assertEqual(set(row.keys()), set(made))
            self.assertEqual(row.host, made['host'])

    def test_an_annotation_describes_the_row(self) -> None:
        self.answered(self.row, db.api.ServiceRow)
        described = self.app.openapi()['components']['schemas']['ServiceRow']
        self.assertEqual(set(self.row.keys()), set(described['properties']))

    def test_the_encoder_takes_rows(self) -> None:
        for made in (
            encoders.jsonable_encoder(self.row),
            *encoders.jsonable_encoder([self.row]),
        ):
            self.assertEqual(self.row.keys(), list(made))
            self.assertEqual(self.row.host, made['host'])
