"""What each call may send: the budget of every public function.

On MariaDB and PostgreSQL it is counted on the wire, in the steady state: the
connections are open, the tables are read. A function that is not in the table
below has no budget, which is a failure.
"""

from collections.abc import Callable
from typing import Any

from myservice import context
from myservice import db
from myservice.tests import base
from myservice.tests import calls
from myservice.tests import factories

# function: how it is called with a service, how many statements, and whether
# they are one transaction (then COMMIT is added, on PostgreSQL and SQLite
# BEGIN too) or commit by themselves.
BUDGETS: dict[str, tuple[Callable[[Any, Any], Any], int, bool]] = {
    'service_create': (
        lambda ctx, _: db.api.service_create(ctx, {'host': 'x', 'binary': ''}),
        2,
        False,
    ),
    'service_register': (
        lambda ctx, s: db.api.service_register(
            ctx, {'host': s.host, 'binary': s.binary}
        ),
        2,
        True,
    ),
    'service_get': (lambda ctx, s: db.api.service_get(ctx, s.id), 1, False),
    'service_get_by_host_and_binary': (
        lambda ctx, s: db.api.service_get_by_host_and_binary(
            ctx, s.host, s.binary
        ),
        1,
        False,
    ),
    'service_get_all': (lambda ctx, _: db.api.service_get_all(ctx), 1, False),
    'service_heartbeat': (
        lambda ctx, s: db.api.service_heartbeat(ctx, s.id),
        1,
        False,
    ),
    'service_heartbeat_many': (
        lambda ctx, s: db.api.service_heartbeat_many(
            ctx, [s.id, *map(str, range(99))]
        ),
        1,
        False,
    ),
    'service_update': (
        lambda ctx, s: db.api.service_update(ctx, s.id, {'version': 1}),
        1,
        False,
    ),
    'service_get_minimum_version': (
        lambda ctx, s: db.api.service_get_minimum_version(ctx, s.binary),
        1,
        False,
    ),
    'service_destroy': (
        lambda ctx, s: db.api.service_destroy(ctx, s.id),
        2,
        True,
    ),
    'purge_operations': (lambda ctx, _: db.api.purge_operations(ctx), 1, True),
}


class TestBudgets(base.DatabaseTestCase):
    def transaction(self, statements: int) -> int:
        # PyMySQL's transactions begin by themselves; psycopg sends BEGIN.
        return statements + (1 if self.backend == 'mysql' else 2)

    def test_every_public_function_has_a_budget(self) -> None:
        # That of run_in_transaction is below.
        self.assertEqual(
            set(calls.names()), set(BUDGETS) | {'run_in_transaction'}
        )

    def test_no_call_sends_more_than_its_budget(self) -> None:
        for name, (call, statements, in_transaction) in BUDGETS.items():
            service = factories.create_service()
            budget = (
                self.transaction(statements) if in_transaction else statements
            )
            with self.commands() as sent:
                call(self.context, service)
            self.assertEqual(budget, len(sent), f'{name}: {sent}')

    def test_a_page_behind_a_marker_is_two(self) -> None:
        services = [factories.create_service() for _ in range(5)]
        with self.commands() as sent:
            page = db.api.service_get_all(
                self.context,
                limit=2,
                marker=services[1].id,
                sort_keys=['availability_zone'],
            )
        self.assertEqual(2, len(page))
        self.assertEqual(2, len(sent), sent)

    def test_calls_in_a_transaction_share_its_begin_and_commit(self) -> None:
        service = factories.create_service()
        with self.commands() as sent, db.api.transaction(self.context):
            db.api.service_get(self.context, service.id)
            db.api.service_heartbeat(self.context, service.id)
            db.api.service_get_all(self.context)
        self.assertEqual(self.transaction(3), len(sent), sent)

    def test_a_transaction_that_does_nothing_sends_nothing(self) -> None:
        with self.commands() as sent:
            with db.api.transaction(self.context):
                pass
            session = db.api.get_session(self.context)
            with session.begin():
                pass
        self.assertEqual([], sent)

    def test_run_in_transaction_adds_one_statement(self) -> None:
        service = factories.create_service()

        def body(ctx: context.RequestContext) -> None:
            db.api.service_heartbeat(ctx, service.id)

        with self.commands() as sent:
            db.api.run_in_transaction(self.context, body)
        self.assertEqual(self.transaction(2), len(sent), sent)

    def test_a_rollback_is_one(self) -> None:
        def fail() -> None:
            with db.api.transaction(self.context):
                db.api.service_get_all(self.context)
                raise ValueError

        with self.commands() as sent:
            self.assertRaises(ValueError, fail)
        self.assertEqual(self.transaction(1), len(sent), sent)
        self.assertTrue(sent[-1].upper().startswith('ROLLBACK'), sent)
