"""Flask, by its own client: when requests commit, and what they leave."""

import json
from collections.abc import Iterator
from typing import Any

import flask
import sqlalchemy as sa
from flask import views
from flask.json import provider as json_provider

from myservice import db
from myservice import exception
from myservice.tests import factories
from myservice.tests.unit.web import test_web
from myservice.web import flask as web

ADMIN = {'X-Roles': 'admin', 'X-User-Id': 'u1'}


class TestFlask(test_web.WebTestCase):
    def setUp(self) -> None:
        super().setUp()
        app: Any = flask.Flask('test')
        web.init_app(app)
        # What had been committed when the response started.
        self.committed: list[str] | None = None
        app.wsgi_app = self.watched(app.wsgi_app)
        self.app = app
        self.transactions: list[Any] = []

    def watched(self, application: Any) -> Any:
        def watching(environ: Any, start_response: Any) -> Any:
            def start(*arguments: Any) -> Any:
                self.committed = self.hosts()
                return start_response(*arguments)

            return application(environ, start)

        return watching

    def view(self, function: Any, path: str = '/') -> None:
        self.app.add_url_rule(path, function.__name__, function)

    def get(self, path: str = '/') -> Any:
        return self.app.test_client().get(path, headers=ADMIN)

    def note_transaction(self) -> None:
        slot = flask.g.context.transaction_slot
        self.transactions.append(slot.transaction)

    def check_undone(self) -> None:
        self.assertEqual([], self.hosts())
        self.check_at_rest()

    def test_the_context_is_that_of_the_headers(self) -> None:
        self.view(lambda: [flask.g.context.user_id, flask.g.context.is_admin])
        self.assertEqual(['u1', True], self.get().json)
        answer = self.app.test_client().get('/')
        self.assertEqual([None, False], answer.json)

    def test_the_roles_of_administrators_are_an_argument(self) -> None:
        app = flask.Flask('other')
        web.init_app(app, admin_roles=['operator'])
        app.add_url_rule('/', view_func=lambda: [flask.g.context.is_admin])
        answers = [
            app.test_client().get('/', headers={'X-Roles': role}).json
            for role in ('admin', 'operator')
        ]
        self.assertEqual([[False], [True]], answers)

    def test_it_commits_before_the_response_starts(self) -> None:
        def view() -> str:
            test_web.write(flask.g.context, 'a')
            test_web.write(flask.g.context, 'b')
            self.assertEqual([], self.hosts())
            return ''

        self.view(view)
        self.assertEqual(200, self.get().status_code)
        self.assertEqual(['a', 'b'], self.committed)
        self.check_at_rest()

    def test_a_redirect_commits(self) -> None:
        def view() -> Any:
            test_web.write(flask.g.context, 'a')
            return flask.redirect('/elsewhere')

        self.view(view)
        self.assertEqual(302, self.get().status_code)
        self.assertEqual(['a'], self.hosts())

    def test_a_request_that_raised_leaves_nothing_open(self) -> None:
        def view() -> str:
            test_web.write(flask.g.context, 'a')
            raise ZeroDivisionError

        self.view(view)
        self.assertEqual(500, self.get().status_code)
        self.check_undone()

    def test_so_it_is_where_exceptions_are_passed_on(self) -> None:
        def view() -> str:
            test_web.write(flask.g.context, 'a')
            raise ZeroDivisionError

        self.app.testing = True
        self.view(view)
        self.assertRaises(ZeroDivisionError, self.get)
        self.check_undone()

    def test_a_worker_that_is_stopped_leaves_nothing_open(self) -> None:
        def view() -> str:
            # Not by its garbage collection.
            self.addCleanup(id, flask.g._get_current_object())
            test_web.write(flask.g.context, 'a')
            raise SystemExit

        self.view(view)
        self.assertRaises(SystemExit, self.get)
        self.check_undone()

    def test_a_request_that_was_aborted_is_rolled_back(self) -> None:
        def view() -> str:
            test_web.write(flask.g.context, 'a')
            flask.abort(int(flask.request.args['status']))

        self.view(view)
        for status in (404, 409, 503):
            answer = self.get(f'/?status={status}')
            self.assertEqual(status, answer.status_code)
            self.check_undone()

    def test_an_error_that_was_handled_is_rolled_back(self) -> None:
        def view() -> str:
            test_web.write(flask.g.context, 'a')
            db.api.service_get(flask.g.context, 'nowhere')
            return ''

        self.view(view)
        self.app.register_error_handler(
            exception.NotFound, lambda error: (str(error), 404)
        )
        self.assertEqual(404, self.get().status_code)
        self.check_undone()

    def test_a_request_that_lost_its_connection_leaves_nothing_open(
        self,
    ) -> None:
        kill = {
            'mysql': 'KILL CONNECTION_ID()',
            'postgresql': 'SELECT pg_terminate_backend(pg_backend_pid())',
        }
        if self.backend not in kill:
            self.skipTest('SQLite has no connection that could be lost')

        def view() -> str:
            test_web.write(flask.g.context, 'a')
            if flask.request.args:
                session = db.api.get_session(flask.g.context)
                session.execute(sa.text(kill[self.backend]))
            return ''

        self.view(view)
        self.assertEqual(500, self.get('/?kill=1').status_code)
        self.check_undone()
        self.assertEqual(200, self.get().status_code)
        self.assertEqual(['a'], self.hosts())

    def test_a_commit_that_fails_is_a_500(self) -> None:
        def view() -> str:
            test_web.write(flask.g.context, 'a')
            test_web.break_statement(flask.g.context)
            return ''

        self.view(view)
        self.assertEqual(500, self.get().status_code)
        self.check_undone()

    def test_other_functions_after_a_request_are_in_it(self) -> None:
        def late(response: Any) -> Any:
            test_web.write(flask.g.context, 'late')
            if flask.request.args:
                raise ZeroDivisionError
            return response

        self.app.after_request(late)
        self.view(lambda: '')
        self.assertEqual(500, self.get('/?fail=1').status_code)
        self.check_undone()
        self.assertEqual(200, self.get().status_code)
        self.assertEqual(['late'], self.committed)

    def test_a_stream_runs_without_a_transaction(self) -> None:
        def stream() -> Iterator[str]:
            self.note_transaction()
            yield 'x'
            test_web.write(flask.g.context, 'b')
            yield 'y'

        def view() -> Any:
            test_web.write(flask.g.context, 'a')
            return flask.Response(flask.stream_with_context(stream()))

        self.view(view)
        self.assertEqual('xy', self.get().text)
        self.assertEqual([None], self.transactions)
        self.assertEqual((['a'], ['a', 'b']), (self.committed, self.hosts()))
        self.check_at_rest()

    def test_a_stream_that_nobody_reads_leaves_nothing_open(self) -> None:
        def stream() -> Iterator[str]:
            yield 'x'
            test_web.write(flask.g.context, 'b')

        def view() -> Any:
            test_web.write(flask.g.context, 'a')
            return flask.Response(flask.stream_with_context(stream()))

        self.view(view)
        answer = self.app.test_client().get('/', headers=ADMIN, buffered=False)
        next(answer.response)
        answer.close()
        self.assertEqual(['a'], self.hosts())
        self.check_at_rest()

    def test_the_next_request_starts_clean(self) -> None:
        def view() -> str:
            test_web.write(flask.g.context, flask.request.args['host'])
            if flask.request.args['host'] == 'bad':
                raise ZeroDivisionError
            return ''

        self.view(view)
        client = self.app.test_client()
        statuses = [
            client.get(f'/?host={host}', headers=ADMIN).status_code
            for host in ('bad', 'good')
        ]
        self.assertEqual(([500, 200], ['good']), (statuses, self.hosts()))

    def test_a_view_may_do_without(self) -> None:
        @web.no_transaction
        def view() -> str:
            self.note_transaction()
            test_web.write(flask.g.context, 'a')
            raise ZeroDivisionError

        self.view(view)
        self.assertEqual(500, self.get().status_code)
        self.assertEqual(([None], ['a']), (self.transactions, self.hosts()))

    def test_a_class_of_views_may_do_without(self) -> None:
        case = self

        class View(views.MethodView):
            decorators = [web.no_transaction]

            def get(self) -> str:
                case.note_transaction()
                return ''

        self.app.add_url_rule('/', view_func=View.as_view('view'))
        self.assertEqual(200, self.get().status_code)
        self.assertEqual([None], self.transactions)

    def test_an_application_may_do_without(self) -> None:
        def view() -> str:
            self.note_transaction()
            return ''

        self.app.config[web.TRANSACTION] = False
        self.view(view)
        self.assertEqual(200, self.get().status_code)
        self.assertEqual([None], self.transactions)

    def test_a_request_without_a_view_is_a_404(self) -> None:
        self.assertEqual(404, self.get('/nowhere').status_code)
        self.check_at_rest()

    def test_a_request_that_ended_before_us_is_left_alone(self) -> None:
        app = flask.Flask('other')
        app.before_request(lambda: ('busy', 503))
        web.init_app(app)
        self.assertEqual(503, app.test_client().get('/').status_code)


class TestRows(test_web.WebTestCase):
    """A row is an object in an answer, and a list of rows a list of them."""

    def setUp(self) -> None:
        super().setUp()
        self.row = factories.create_service()

    def answered(self, answer: Any, status: int = 200) -> Any:
        app: Any = flask.Flask('rows')
        web.init_app(app)
        app.add_url_rule('/', 'answer', answer)
        answered = app.test_client().get('/', headers=ADMIN)
        self.assertEqual(status, answered.status_code)
        return answered

    def test_a_view_may_return_rows(self) -> None:
        row = self.row
        one: Any
        for one in (row, (row, {'X-A': 'b'}), {**row}):
            self.assert_is_row(self.answered(lambda one=one: one).json)
        for one in ([row], ([row], 200), [{**row}]):
            self.assert_is_row(self.answered(lambda one=one: one).json[0])
        made = self.answered(lambda: {'in': [{'it': (row,)}]}).json
        self.assert_is_row(made['in'][0]['it'][0])

    def assert_is_row(self, made: Any) -> None:
        self.assertEqual(set(self.row.keys()), set(made))
        self.assertEqual(self.row.host, made['host'])

    def test_a_row_may_have_a_status_and_headers(self) -> None:
        answered = self.answered(lambda: (self.row, 202, {'X-A': 'b'}), 202)
        self.assertEqual('b', answered.headers['X-A'])
        self.assertEqual(self.row.id, answered.json['id'])

    def test_jsonify_takes_rows(self) -> None:
        row = self.row
        self.assert_is_row(self.answered(lambda: flask.jsonify(row)).json)
        listed = self.answered(lambda: flask.jsonify([row, row])).json
        self.assert_is_row(listed[1])
        named = self.answered(lambda: flask.jsonify(a=row)).json
        self.assert_is_row(named['a'])
        text = self.answered(lambda: flask.json.dumps(row)).text
        self.assert_is_row(json.loads(text))

    def test_other_answers_stay_as_they_are(self) -> None:
        for answer, text in (
            ('text', 'text'),
            (('text', 200), 'text'),
            ({'b': (1, 2), 'a': None}, '{"a":null,"b":[1,2]}\n'),
            ([], '[]\n'),
        ):
            made = self.answered(lambda answer=answer: answer)
            self.assertEqual(text, made.text)

    def test_a_provider_of_the_application_stays(self) -> None:
        class Provider(json_provider.DefaultJSONProvider):
            sort_keys = False

        app: Any = flask.Flask('rows')
        app.json = Provider(app)
        web.init_app(app)
        app.json.ensure_ascii = False
        self.assertIsInstance(app.json, Provider)
        text = app.json.dumps(self.row | {'host': 'ä'})
        self.assertIn('"host": "ä"', text)
        text = app.json.dumps(self.row)
        self.assertEqual(self.row.keys(), list(json.loads(text)))
