"""RequestContext: what copies share, and what travels."""

import copy
from typing import Any

from oslo_context import context as oslo_context
from oslo_context import fixture as oslo_fixture

from myservice import context
from myservice import exception
from myservice.tests import base


class ContextTestCase(base.TestCase):
    def setUp(self) -> None:
        super().setUp()
        # oslo.context remembers the newest context of the thread.
        self.useFixture(oslo_fixture.ClearRequestContext())


class TestElevated(ContextTestCase):
    def test_the_copy_is_an_administrator_and_the_original_is_not(
        self,
    ) -> None:
        user = context.RequestContext('u', 'p')
        admin = user.elevated()
        self.assertEqual(
            (True, 'u', 'p'), (admin.is_admin, admin.user_id, admin.project_id)
        )
        self.assertFalse(user.is_admin)

    def test_both_join_the_same_transaction(self) -> None:
        user = context.RequestContext()
        self.assertIs(user.transaction_slot, user.elevated().transaction_slot)

    def test_read_deleted_is_kept_unless_given(self) -> None:
        user = context.RequestContext(read_deleted='yes')
        self.assertEqual('yes', user.elevated().read_deleted)
        self.assertEqual('only', user.elevated('only').read_deleted)
        self.assertEqual('yes', user.read_deleted)


class TestCopies(ContextTestCase):
    def test_two_contexts_share_no_transaction(self) -> None:
        self.assertIsNot(
            context.get_admin_context().transaction_slot,
            context.get_admin_context().transaction_slot,
        )

    def test_a_deep_copy_is_for_another_thread_and_shares_none(self) -> None:
        user = context.RequestContext('u', read_deleted='yes')
        user.transaction_slot.transaction = object()
        twin = copy.deepcopy(user)
        self.assertIsNot(user.transaction_slot, twin.transaction_slot)
        self.assertIsNone(twin.transaction_slot.transaction)
        self.assertEqual(('u', 'yes'), (twin.user_id, twin.read_deleted))

    def test_a_dict_keeps_read_deleted_and_leaves_the_transaction(
        self,
    ) -> None:
        user = context.RequestContext(
            'u', 'p', is_admin=True, read_deleted='only'
        )
        user.transaction_slot.transaction = object()
        values = user.to_dict()
        self.assertNotIn('transaction_slot', values)
        twin = context.RequestContext.from_dict(values)
        self.assertIsInstance(twin, context.RequestContext)
        self.assertEqual(
            ('u', 'p', True, 'only'),
            (twin.user_id, twin.project_id, twin.is_admin, twin.read_deleted),
        )
        self.assertEqual(user.request_id, twin.request_id)
        self.assertIsNone(twin.transaction_slot.transaction)

    def test_a_dict_without_read_deleted_means_no(self) -> None:
        twin = context.RequestContext.from_dict({'user_id': 'u'})
        self.assertEqual('no', twin.read_deleted)


class TestReadDeleted(ContextTestCase):
    def test_it_is_no_by_default(self) -> None:
        self.assertEqual('no', context.RequestContext().read_deleted)
        self.assertEqual('no', context.get_admin_context().read_deleted)

    def test_it_is_one_of_three(self) -> None:
        user = context.RequestContext()
        wrong: Any
        for wrong in ('maybe', '', None, True, 'NO'):
            for function in (
                lambda value: context.RequestContext(read_deleted=value),
                context.get_admin_context,
                lambda value: context.RequestContext.from_dict(
                    {'read_deleted': value}
                ),
            ):
                error = self.assertRaises(
                    exception.InvalidInput, function, wrong
                )
                self.assertEqual('read_deleted', error.field)
        error = self.assertRaises(
            exception.InvalidInput, user.elevated, 'maybe'
        )
        self.assertEqual('read_deleted', error.field)


class TestAdminContext(ContextTestCase):
    def test_it_is_an_administrator_without_user_or_project(self) -> None:
        admin = context.get_admin_context('yes')
        self.assertEqual(
            (True, None, None, 'yes'),
            (
                admin.is_admin,
                admin.user_id,
                admin.project_id,
                admin.read_deleted,
            ),
        )

    def test_making_one_leaves_the_context_of_the_thread(self) -> None:
        user = context.RequestContext('u')
        context.get_admin_context()
        self.assertIs(user, oslo_context.get_current())

    def test_elevating_leaves_the_context_of_the_thread(self) -> None:
        user = context.RequestContext('u')
        user.elevated()
        self.assertIs(user, oslo_context.get_current())

    def test_making_one_where_the_thread_has_none_leaves_it_so(self) -> None:
        context.get_admin_context()
        self.assertIsNone(oslo_context.get_current())


class TestRequireAdmin(ContextTestCase):
    def test_an_administrator_passes(self) -> None:
        context.require_admin(context.get_admin_context(), 'f')
        context.require_admin(context.RequestContext('u').elevated(), 'f')

    def test_anybody_else_is_refused_by_name(self) -> None:
        error = self.assertRaises(
            exception.AdminRequired,
            context.require_admin,
            context.RequestContext('u'),
            'service_destroy',
        )
        self.assertEqual(
            ('u', 'service_destroy'), (error.user_id, error.function)
        )
        self.assertIn('User u is not an administrator', str(error))

    def test_what_is_no_context_of_ours_is_refused(self) -> None:
        wrong: Any
        for wrong in (
            None,
            'admin',
            oslo_context.RequestContext(is_admin=True),
        ):
            error = self.assertRaises(
                exception.InvalidInput, context.require_admin, wrong, 'f'
            )
            self.assertEqual('context', error.field)
