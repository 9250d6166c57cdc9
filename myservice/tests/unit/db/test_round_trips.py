"""What each call may send: the budget of every public function.

On MariaDB and PostgreSQL it is counted on the wire, in the steady state: the
connections are open, the tables are read. A function that is not in the table
below has no budget, which is a failure.
"""

import uuid
from typing import Any

from myservice import context
from myservice import db
from myservice import exception
from myservice.tests import base
from myservice.tests import calls
from myservice.tests import factories

# function: how many statements its example call sends, and whether they are
# one transaction (then COMMIT is added, on PostgreSQL and SQLite BEGIN too) or
# commit by themselves.
BUDGETS: dict[str, tuple[int, bool]] = {
    'service_count': (1, False),
    'service_create': (2, False),
    'service_register': (3, True),
    'service_get': (1, False),
    'service_get_by_host_and_binary': (1, False),
    'service_get_many': (1, False),
    'service_get_all': (1, False),
    'service_heartbeat': (1, False),
    'service_heartbeat_many': (1, False),
    'service_unregister': (1, False),
    'service_update': (1, False),
    'service_get_minimum_version': (1, False),
    'service_destroy': (3, True),
    'quota_create': (2, False),
    'quota_get': (1, False),
    'quota_get_all': (1, False),
    'quota_set': (1, False),
    'quota_update': (1, False),
    'quota_destroy': (1, False),
    'quota_class_create': (2, False),
    'quota_class_get': (1, False),
    'quota_class_get_all': (1, False),
    'quota_class_set': (1, False),
    'quota_class_update': (1, False),
    'quota_class_destroy': (1, False),
    'quota_usage_get_all': (1, False),
    'quota_usage_get_projects': (1, False),
    'quota_usage_get_uncounted': (1, False),
    'quota_usage_check': (1, False),
    'quota_usage_sync': (2, True),
    'quota_reserve': (2, True),
    'reservation_commit': (2, True),
    'reservation_rollback': (2, True),
    'reservation_expire': (3, True),
    'reservation_purge': (1, True),
    'resource_count': (1, False),
    'resource_create': (3, True),
    'resource_get': (1, False),
    'resource_get_many': (1, False),
    'resource_get_all': (1, False),
    'resource_update': (1, False),
    'resource_destroy': (3, True),
    'resource_metadata_get': (1, False),
    'resource_metadata_get_many': (1, False),
    'resource_metadata_set': (3, True),
    'resource_metadata_update': (3, True),
    'resource_metadata_delete': (2, True),
    'resource_tag_add': (1, False),
    'resource_tag_exists': (1, False),
    'resource_tag_remove': (1, False),
    'resource_tags_add': (1, False),
    'resource_tags_get': (1, False),
    'resource_tags_get_many': (1, False),
    'resource_tags_remove': (1, False),
    'resource_tags_set': (3, True),
    'resource_claim': (1, False),
    'resource_claim_next': (1, True),
    'resource_claim_renew': (1, False),
    'resource_claim_hand_over': (1, False),
    'resource_release': (1, False),
    'claims_take_over': (1, False),
    'purge_operations': (1, True),
}

# MariaDB has no UPDATE … RETURNING.
MORE_ON_MYSQL = {'resource_claim_next': 1}


class BudgetTestCase(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        # A slow machine is no reason to ping.
        self.database.configure(ping_after_idle=60)

    def transaction(self, statements: int) -> int:
        """Return how many commands a transaction of statements is."""
        # PyMySQL's transactions begin by themselves; psycopg sends BEGIN.
        return statements + (1 if self.backend == 'mysql' else 2)


class TestBudgets(BudgetTestCase):
    def test_every_public_function_has_a_budget(self) -> None:
        # That of run_in_transaction is below.
        self.assertEqual(
            set(calls.names()), set(BUDGETS) | {'run_in_transaction'}
        )

    def test_no_call_sends_more_than_its_budget(self) -> None:
        for name, (statements, in_transaction) in BUDGETS.items():
            call = calls.example(name, calls.World(name))
            if self.backend == 'mysql':
                statements += MORE_ON_MYSQL.get(name, 0)
            budget = (
                self.transaction(statements) if in_transaction else statements
            )
            with self.commands() as sent:
                call()
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

    def test_to_name_the_registration_costs_nothing(self) -> None:
        values = {'host': 'h', 'binary': 'b'}
        admin = context.get_admin_context()
        db.api.resource_create(admin, {'project_id': 'p'})
        for _ in range(2):
            with self.commands() as sent:
                service = db.api.service_register(
                    admin, values, only_if_silent_for=0
                )
            self.assertEqual(self.transaction(3), len(sent), sent)
        with self.commands() as sent:
            db.api.service_heartbeat(admin, service.id, service.registration)
        self.assertEqual(1, len(sent), sent)
        with self.commands() as sent:
            db.api.service_heartbeat_many(
                admin, [(service.id, service.registration), 'unknown']
            )
        self.assertEqual(1, len(sent), sent)
        with self.commands() as sent:
            (claim,) = db.api.resource_claim_next(
                admin, service.id, registration=service.registration
            )
        more = MORE_ON_MYSQL['resource_claim_next']
        more = more if self.backend == 'mysql' else 0
        self.assertEqual(self.transaction(1 + more), len(sent), sent)
        db.api.resource_release(admin, claim)
        with self.commands() as sent:
            db.api.resource_claim(
                admin, claim.resource_id, service.id, service.registration
            )
        self.assertEqual(1, len(sent), sent)
        with self.commands() as sent:
            db.api.service_unregister(admin, service.id, service.registration)
        self.assertEqual(1, len(sent), sent)

    def test_a_new_size_is_a_transaction_of_three(self) -> None:
        admin = context.get_admin_context()
        made = db.api.resource_create(admin, {'project_id': 'p', 'size': 1})
        # Where the size stays the same, no usage is looked at.
        for size, statements in ((5, 3), (5, 2), (2, 3)):
            with self.commands() as sent:
                db.api.resource_update(admin, made.id, {'size': size})
            self.assertEqual(self.transaction(statements), len(sent), sent)

    def test_a_hundred_heartbeats_are_one(self) -> None:
        ids = [factories.create_service().id for _ in range(100)]
        with self.commands() as sent:
            db.api.service_heartbeat_many(self.context, ids)
        self.assertEqual(1, len(sent), sent)


class TestQuotas(BudgetTestCase):
    """However many resources or reservations, the statements are as many."""

    def setUp(self) -> None:
        super().setUp()
        self.names = [f'resource {number}' for number in range(10)]
        self.database.conf.set_override(
            'default_limits', dict.fromkeys(self.names, 1000), group='quota'
        )
        self.user = context.RequestContext(project_id='p', overwrite=False)
        self.reserve(10)

    def reserve(self, count: int, **arguments: Any) -> list[str]:
        deltas = dict.fromkeys(self.names[:count], 1)
        return db.api.quota_reserve(self.user, deltas, **arguments)

    def test_reserve_commit_and_rollback_are_two_statements(self) -> None:
        for count in (1, 2, 10):
            for end in (
                db.api.reservation_commit,
                db.api.reservation_rollback,
            ):
                with self.commands() as sent:
                    ids = self.reserve(count)
                self.assertEqual(self.transaction(2), len(sent), sent)
                with self.commands() as sent:
                    end(self.user, ids)
                self.assertEqual(self.transaction(2), len(sent), sent)

    def test_a_joined_one_adds_a_savepoint(self) -> None:
        with self.commands() as sent, db.api.transaction(self.user):
            db.api.reservation_commit(self.user, self.reserve(2))
        self.assertEqual(self.transaction(2 * (2 + 2)), len(sent), sent)

    def test_a_refusal_is_seven(self) -> None:
        def refuse() -> None:
            db.api.quota_reserve(self.user, {self.names[0]: 1001})

        with self.commands() as sent:
            self.assertRaises(exception.OverQuota, refuse)
        self.assertEqual(self.transaction(6), len(sent), sent)

    def test_five_hundred_expire_in_a_handful(self) -> None:
        for _ in range(50):
            self.reserve(10, expire=-1)
        with self.commands() as sent:
            self.assertEqual(500, db.api.reservation_expire(self.context))
        self.assertEqual(3 * self.transaction(3), len(sent), sent)
        self.assertTrue(len(sent) <= 0.05 * 500)


class TestResources(BudgetTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.user = context.RequestContext(project_id='p', overwrite=False)
        self.made = [
            db.api.resource_create(
                self.user,
                {'size': 1, 'metadata': {'k': 'v'}, 'tags': ['t']},
            )
            for _ in range(10)
        ]

    def test_one_with_metadata_and_tags_is_three(self) -> None:
        with self.commands() as sent:
            db.api.resource_get(self.user, self.made[0].id)
            db.api.resource_metadata_get(self.user, self.made[0].id)
            db.api.resource_tags_get(self.user, self.made[0].id)
        self.assertEqual(3, len(sent), sent)

    def test_a_page_with_metadata_and_tags_is_four(self) -> None:
        with self.commands() as sent:
            page = db.api.resource_get_all(
                self.user, limit=5, marker=self.made[1].id
            )
            ids = [row.id for row in page]
            db.api.resource_metadata_get_many(self.user, ids)
            db.api.resource_tags_get_many(self.user, ids)
        self.assertEqual(4, len(sent), sent)

    def test_a_create_with_everything_is_five(self) -> None:
        with self.commands() as sent:
            db.api.resource_create(
                self.user,
                {
                    'size': 1,
                    'metadata': {'a': '1', 'b': '2'},
                    'tags': ['a', 'b'],
                },
            )
        self.assertEqual(self.transaction(5), len(sent), sent)

    def test_a_create_with_an_id_is_as_one_without(self) -> None:
        values = {'id': str(uuid.uuid4()), 'size': 1}
        for expected in (3, 2):
            with self.commands() as sent:
                db.api.resource_create(self.user, values)
            self.assertEqual(self.transaction(expected), len(sent), sent)
        values = {'id': str(uuid.uuid4()), 'host': 'h', 'binary': 'b'}
        for _ in range(2):
            with self.commands() as sent:
                db.api.service_create(self.context, values)
            self.assertEqual(2, len(sent), sent)

    def test_a_conditional_update_is_one(self) -> None:
        service = factories.create_service()
        resource_id = self.made[0].id
        claim = db.api.resource_claim(self.context, resource_id, service.id)
        with self.commands() as sent:
            db.api.resource_update(
                self.user,
                resource_id,
                {'status': 'done'},
                {'status': ('requested', 'x'), 'kind': None},
                claim,
            )
        self.assertEqual(1, len(sent), sent)
