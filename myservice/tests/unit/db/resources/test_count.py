"""Counts: how many resources and services there are, of each kind."""

import collections
from typing import Any

from myservice import context
from myservice import db
from myservice import exception
from myservice.tests import base
from myservice.tests import factories
from myservice.tests.unit.db.resources import test_resource


class TestResources(test_resource.ResourceTestCase):
    def setUp(self) -> None:
        super().setUp()
        for kind, tags in (
            ('x', ['a']),
            ('x', ['a', 'b']),
            ('X', ['b']),
            ('x ', []),
            (None, ['a']),
        ):
            self.create(kind=kind, tags=tags, status=f'is {kind}')
        db.api.resource_create(self.other, {'kind': 'x'})
        gone = self.create(kind='x')
        db.api.resource_destroy(self.user, gone.id)

    def test_it_is_as_many_as_the_list_has(self) -> None:
        filters: Any
        for ctx in (
            self.user,
            self.other,
            self.context,
            self.user.with_deleted('yes'),
            self.user.with_deleted('only'),
        ):
            for filters in (
                None,
                {},
                {'kind': 'x'},
                {'kind': ['x', None]},
                {'kind': db.api.Not('x')},
                {'tags': ['a', 'b']},
                {'tags-any': ['a', 'b'], 'is_claimed': False},
                {'tags-any': list(map(str, range(20)))},
                {'not-tags-any': ['a']},
                {'project_id': 'p'},
                {'name': 'none has it'},
            ):
                rows = db.api.resource_get_all(ctx, filters)
                found = db.api.resource_count(ctx, filters)
                self.assertEqual((int, len(rows)), (type(found), found))
                for name in ('status', 'kind', 'project_id', 'service_id'):
                    by_value = collections.Counter(row[name] for row in rows)
                    self.assertEqual(
                        dict(by_value),
                        db.api.resource_count(ctx, filters, name),
                        (name, filters),
                    )

    def test_null_and_texts_count_for_themselves(self) -> None:
        self.assertEqual(
            {'x': 2, 'X': 1, 'x ': 1, None: 1},
            db.api.resource_count(self.user, group_by='kind'),
        )

    def test_those_that_a_service_holds(self) -> None:
        claim = self.claim(self.create())
        self.assertEqual(
            {None: 5, claim.service_id: 1},
            db.api.resource_count(self.user, group_by='service_id'),
        )

    def test_none_is_no_value(self) -> None:
        wanted = {'name': 'none has it'}
        self.assertEqual(0, db.api.resource_count(self.user, wanted))
        self.assertEqual({}, db.api.resource_count(self.user, wanted, 'kind'))

    def test_what_cannot_be_grouped_by_is_refused_before_any_sql(self) -> None:
        wrong: tuple[Any, ...] = (
            '',
            'name',
            'deleted',
            'nothing',
            5,
            ['kind'],
        )
        with self.commands() as sent:
            for name in wrong:
                error: Any = self.assertRaises(
                    exception.InvalidInput,
                    db.api.resource_count,
                    self.user,
                    None,
                    name,
                )
                self.assertEqual('group_by', error.field)
            self.assertRaises(
                exception.InvalidInput,
                db.api.resource_count,
                self.user,
                {'colour': 'red'},
            )
        self.assertEqual([], sent)

    def test_a_caller_without_a_project_is_told_so(self) -> None:
        nobody = context.RequestContext('user', overwrite=False)
        error: Any = self.assertRaises(
            exception.InvalidInput, db.api.resource_count, nobody
        )
        self.assertEqual('project_id', error.field)

    def test_it_is_one_statement_and_sees_its_transaction(self) -> None:
        for name in (None, 'kind'):
            with self.commands() as sent:
                db.api.resource_count(
                    self.user, {'tags-any': ['a']}, group_by=name
                )
            self.assertEqual(1, len(sent), sent)
        with db.api.transaction(self.user):
            self.create()
            self.assertEqual(6, db.api.resource_count(self.user))


class TestServices(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        for topic, zone, values in (
            ('t', 'z', {}),
            ('t', None, {'disabled': True}),
            ('u', 'z', {'forced_down': True}),
        ):
            factories.create_service(
                topic=topic, availability_zone=zone, **values
            )
        gone = factories.create_service(topic='t')
        db.api.service_destroy(self.context, gone.id)

    def test_it_is_as_many_as_the_list_has(self) -> None:
        filters: Any
        for filters in (
            None,
            {'topic': 't'},
            {'is_up': True},
            {'is_up': False, 'disabled': False},
            {'host': 'none has it'},
        ):
            rows = db.api.service_get_all(self.context, filters)
            found = db.api.service_count(self.context, filters)
            self.assertEqual((int, len(rows)), (type(found), found))
            for name in (
                'binary',
                'topic',
                'availability_zone',
                'is_up',
                'disabled',
            ):
                by_value = collections.Counter(row[name] for row in rows)
                self.assertEqual(
                    dict(by_value),
                    db.api.service_count(self.context, filters, name),
                    (name, filters),
                )

    def test_whether_they_are_up_is_a_bool(self) -> None:
        for name in ('is_up', 'disabled'):
            found = db.api.service_count(self.context, group_by=name)
            self.assertEqual({bool}, set(map(type, found)))
            self.assertEqual({1, 2}, set(found.values()))

    def test_it_is_for_administrators(self) -> None:
        user = context.RequestContext('user', 'p', overwrite=False)
        self.assertRaises(exception.AdminRequired, db.api.service_count, user)

    def test_what_cannot_be_grouped_by_is_refused(self) -> None:
        wrong: tuple[Any, ...] = ('host', 'status', 5)
        for name in wrong:
            error: Any = self.assertRaises(
                exception.InvalidInput,
                db.api.service_count,
                self.context,
                None,
                name,
            )
            self.assertEqual('group_by', error.field)
