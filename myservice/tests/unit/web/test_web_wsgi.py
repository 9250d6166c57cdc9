"""The WSGI middleware, called as a server would call it."""

import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any
from wsgiref import util
from wsgiref import validate

from myservice import exception
from myservice.tests.unit.web import test_web
from myservice.web import wsgi

OK, PLAIN = '200 OK', [('Content-Type', 'text/plain')]


class Body:
    """A body that notes whether it was closed."""

    def __init__(self, *chunks: Any) -> None:
        self._chunks = chunks
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            yield chunk() if callable(chunk) else chunk

    def close(self) -> None:
        self.closed += 1


class TestWSGI(test_web.WebTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.contexts: list[Any] = []
        self.written: list[bytes] = []
        # For each response that started: what had been committed by then.
        self.started: list[tuple[str, list[str]]] = []

    def request(
        self,
        application: Any,
        transaction: bool = True,
        rollback_from: int = 500,
        **environ: str,
    ) -> bytes:
        """Do what a server does, under the eyes of wsgiref's validator."""
        middleware: Any = validate.validator(
            wsgi.ContextMiddleware(
                validate.validator(application),
                transaction=transaction,
                rollback_from=rollback_from,
            )
        )
        values: dict[str, Any] = {'QUERY_STRING': '', **environ}
        util.setup_testing_defaults(values)
        body = middleware(values, self.start_response)
        try:
            return b''.join(body)
        finally:
            body.close()

    def start_response(
        self, status: str, headers: Any, exc_info: Any = None
    ) -> Callable[[bytes], object]:
        self.started.append((status, self.hosts()))
        return self.written.append

    def writing(
        self, host: str, status: str = OK, body: Iterable[bytes] = (b'x',)
    ) -> Any:
        """Return an application that writes a service and answers so."""

        def application(environ: Any, start_response: Any) -> Any:
            self.contexts.append(environ[wsgi.CONTEXT])
            test_web.write(environ[wsgi.CONTEXT].elevated(), host)
            start_response(status, PLAIN)
            return body

        return application

    def test_each_request_has_a_context_of_its_own(self) -> None:
        for user in ('u1', 'u2'):
            self.request(
                self.writing(user), HTTP_X_USER_ID=user, HTTP_X_ROLES='admin'
            )
        first, second = self.contexts
        self.assertEqual(
            [('u1', True), ('u2', True)],
            [(each.user_id, each.is_admin) for each in (first, second)],
        )
        self.assertIsNot(first.transaction_slot, second.transaction_slot)

    def test_without_a_transaction_each_call_is_its_own(self) -> None:
        self.request(self.writing('a', '500 No'), transaction=False)
        self.assertEqual([('500 No', ['a'])], self.started)

    def test_it_commits_before_the_response_starts(self) -> None:
        self.assertEqual(b'x', self.request(self.writing('a')))
        self.assertEqual([(OK, ['a'])], self.started)
        self.check_at_rest()

    def test_an_error_response_rolls_back(self) -> None:
        for status, rollback_from in (
            ('500 No', 500),
            ('503 Not Now', 500),
            ('404 Not Found', 400),
        ):
            body = Body(b'why')
            application = self.writing(status, status, body)
            sent = self.request(application, rollback_from=rollback_from)
            self.assertEqual((b'why', 1), (sent, body.closed))
            self.assertEqual((status, []), self.started[-1])
            self.check_at_rest()

    def test_a_refusal_of_what_a_statement_has_failed_is_answered(
        self,
    ) -> None:
        def application(environ: Any, start_response: Any) -> Any:
            test_web.write(environ[wsgi.CONTEXT].elevated(), 'a')
            test_web.break_statement(environ[wsgi.CONTEXT])
            start_response('409 Conflict', PLAIN)
            return [b'why']

        self.assertEqual(b'why', self.request(application))
        self.assertEqual([('409 Conflict', [])], self.started)
        self.check_at_rest()

    def test_other_responses_commit(self) -> None:
        for status in ('201 Created', '303 See Other', '404 Not Found'):
            middleware = wsgi.ContextMiddleware(
                self.writing(status, status, ()), transaction=True
            )
            middleware({}, self.start_response)
            self.assertIn(status, self.hosts())

    def test_an_exception_rolls_back_and_reaches_the_server(self) -> None:
        def application(environ: Any, start_response: Any) -> Any:
            test_web.write(environ[wsgi.CONTEXT].elevated(), 'a')
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.request, application)
        self.assertEqual(([], []), (self.started, self.hosts()))
        self.check_at_rest()

    def test_a_commit_that_fails_starts_no_response(self) -> None:
        body = Body(b'x')

        def application(environ: Any, start_response: Any) -> Any:
            test_web.write(environ[wsgi.CONTEXT].elevated(), 'a')
            test_web.break_statement(environ[wsgi.CONTEXT])
            start_response(OK, PLAIN)
            return body

        self.assertRaises(
            exception.TransactionDoomed, self.request, application
        )
        self.assertEqual(
            ([], [], 1), (self.started, self.hosts(), body.closed)
        )
        self.check_at_rest()

    def test_an_error_after_a_part_takes_its_place(self) -> None:
        def application(environ: Any, start_response: Any) -> Any:
            write = start_response(OK, PLAIN)
            write(b'half of it')
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                start_response('500 No', PLAIN, sys.exc_info())
            return [b'why']

        self.assertEqual(b'why', self.request(application))
        self.assertEqual([], self.written)
        self.assertEqual([('500 No', [])], self.started)

    def test_two_statuses_are_an_error(self) -> None:
        def application(environ: Any, start_response: Any) -> Any:
            start_response(OK, PLAIN)
            start_response('404 Not Found', PLAIN)
            return []

        middleware = wsgi.ContextMiddleware(application, transaction=True)
        self.assertRaisesRegex(
            RuntimeError,
            'called twice',
            middleware,
            {},
            self.start_response,
        )

    def test_a_stream_runs_without_a_transaction(self) -> None:
        def stream() -> bytes:
            seen.append(self.contexts[0].transaction_slot.transaction)
            test_web.write(self.contexts[0].elevated(), 'b')
            seen.append(self.hosts())
            return b'y'

        seen: list[Any] = []
        body = Body(b'x', stream)
        self.assertEqual(b'xy', self.request(self.writing('a', OK, body)))
        self.assertEqual([(OK, ['a'])], self.started)
        self.assertEqual(([None, ['a', 'b']], 1), (seen, body.closed))
        self.check_at_rest()

    def test_a_generator_has_its_transaction_up_to_its_status(self) -> None:
        def application(environ: Any, start_response: Any) -> Any:
            context = environ[wsgi.CONTEXT]
            test_web.write(context.elevated(), 'a')
            start_response(OK, PLAIN)
            yield b'x'
            seen.append(context.transaction_slot.transaction)
            yield b'y'

        seen: list[Any] = []
        self.assertEqual(b'xy', self.request(application))
        self.assertEqual(([(OK, ['a'])], [None]), (self.started, seen))

    def test_a_generator_that_raised_leaves_nothing_open(self) -> None:
        def application(environ: Any, start_response: Any) -> Any:
            test_web.write(environ[wsgi.CONTEXT].elevated(), 'a')
            raise ZeroDivisionError
            yield b''

        self.assertRaises(ZeroDivisionError, self.request, application)
        self.assertEqual(([], []), (self.started, self.hosts()))
        self.check_at_rest()

    def test_without_a_status_nothing_is_committed(self) -> None:
        body = Body(b'')

        def application(environ: Any, start_response: Any) -> Any:
            test_web.write(environ[wsgi.CONTEXT].elevated(), 'a')
            return body

        middleware = wsgi.ContextMiddleware(application, transaction=True)
        self.assertRaises(RuntimeError, middleware, {}, self.start_response)
        self.assertEqual(([], 1), (self.hosts(), body.closed))

    def test_a_client_that_hangs_up_leaves_nothing_open(self) -> None:
        body = Body(b'x', b'y')
        middleware = wsgi.ContextMiddleware(
            self.writing('a', OK, body), transaction=True
        )
        sent: Any = middleware({}, self.start_response)
        next(iter(sent))
        sent.close()
        self.assertEqual((['a'], 1), (self.hosts(), body.closed))
        self.check_at_rest()

    def test_what_is_written_comes_first(self) -> None:
        def application(environ: Any, start_response: Any) -> Any:
            send = start_response(OK, PLAIN)
            send(b'x')
            return [b'y']

        self.assertEqual(b'xy', self.request(application))

    def test_what_is_written_late_goes_to_the_server(self) -> None:
        def application(environ: Any, start_response: Any) -> Any:
            send = start_response(OK, PLAIN)
            yield b'x'
            send(b'y')

        self.assertEqual(b'x', self.request(application))
        self.assertEqual([b'y'], self.written)

    def test_a_status_that_comes_late_goes_to_the_server(self) -> None:
        def application(environ: Any, start_response: Any) -> Any:
            start_response(OK, PLAIN)
            yield b'x'
            error = ZeroDivisionError()
            start_response('500 No', PLAIN, (type(error), error, None))
            yield b'y'

        self.request(application)
        statuses = [status for status, _ in self.started]
        self.assertEqual([OK, '500 No'], statuses)

    def test_a_status_may_be_replaced_until_it_was_sent(self) -> None:
        def application(environ: Any, start_response: Any) -> Any:
            test_web.write(environ[wsgi.CONTEXT].elevated(), 'a')
            start_response(OK, PLAIN)
            try:
                raise ZeroDivisionError
            except ZeroDivisionError as error:
                info = (type(error), error, error.__traceback__)
                start_response('500 No', PLAIN, info)
            return [b'x']

        self.request(application)
        self.assertEqual([('500 No', [])], self.started)

    def test_the_body_that_the_server_knows_is_handed_on(self) -> None:
        body = [b'x']
        middleware = wsgi.ContextMiddleware(
            self.writing('a', OK, body), transaction=True
        )
        self.assertIs(body, middleware({}, self.start_response))
