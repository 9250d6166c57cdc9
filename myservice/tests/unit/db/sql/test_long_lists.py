"""Lists of any length, in every call that takes one."""

import datetime
import inspect
import re
from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import db
from myservice.db import models
from myservice.db.query import listing
from myservice.db.sql import in_list
from myservice.tests import base
from myservice.tests import calls
from myservice.tests import long_lists

LENGTH = long_lists.LENGTH
TAGS = 1000

# Whatever a text can be taken for on its way through arrays, JSON and SQL.
HOSTILE = (
    *(
        '',
        ' ',
        'a',
        'A',
        'a ',
        ' a',
        'ä',
        'a\u0308',
        '😀',
        'ß',
        'ss',
        '\u2028',
    ),
    *(
        "'",
        '"',
        '\\',
        "\\'",
        '\\"',
        '\\\\',
        "'' OR 1=1 --",
        '%s',
        '%(a)s',
        ':a',
    ),
    *(
        '?',
        '{a,b}',
        '{}',
        '[]',
        '["a"]',
        'null',
        'NULL',
        '\\u0041',
        '\\n',
        '\n',
    ),
    *(
        '\t',
        '\r\n',
        '\x01',
        '\x7f',
        'a,b',
        '(a)',
        '1',
        '1.0',
        'true',
        'x' * 255,
    ),
)


def unknown(number: int) -> list[str]:
    return [f'unknown {each}' for each in range(number)]


class LongListsTestCase(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.world = long_lists.World()
        self.user = self.world.user


class TestCalls(LongListsTestCase):
    def test_every_call_that_takes_a_list_is_among_them(self) -> None:
        takes_a_list = re.compile(r'Collection|Sequence|Mapping')
        wanted = {
            (name, parameter.name)
            for name in calls.names()
            for parameter in inspect.signature(
                getattr(db.api, name)
            ).parameters.values()
            if takes_a_list.search(str(parameter.annotation))
        }
        there = {(case.function, case.argument) for case in long_lists.CASES}
        self.assertEqual(set(), wanted - there - long_lists.SHORT)
        self.assertEqual(set(), there - wanted)

    def test_each_is_exact(self) -> None:
        for case in long_lists.CASES:
            known = case.known(self.world)
            for number in (9, LENGTH):
                values = unknown(number)
                name = f'{case.function}, {case.argument}, {number}'
                nothing = case.call(self.world, values)
                self.assertEqual(case.nothing, nothing, name)
                values.insert(number // 2, known)
                found = case.call(self.world, values)
                self.assertEqual(case.found, found, name)

    def test_a_list_with_nothing_in_it_is_one(self) -> None:
        self.assertEqual(0, db.api.service_heartbeat_many(self.context, []))
        for wanted, number in (
            ({'name': []}, 0),
            ({'name': db.api.Not([])}, 1),
            ({'tags': []}, 1),
            ({'metadata': {}}, 1),
        ):
            found = db.api.resource_get_all(self.user, wanted)
            self.assertEqual(number, len(found))

    def test_statements_are_as_many_as_for_a_short_one(self) -> None:
        resource_id = self.world.resource.id
        for name, arguments in (
            ('service_heartbeat_many', ()),
            ('resource_tags_get_many', ()),
            ('resource_tags_set', (resource_id,)),
        ):
            sent = {}
            for number in (9, LENGTH, LENGTH):
                # A connection of MariaDB asks once how long a statement may
                # be, when the first long one comes.
                with self.commands() as sent[number]:
                    getattr(db.api, name)(
                        self.context, *arguments, unknown(number)
                    )
            self.assertEqual(len(sent[9]), len(sent[LENGTH]), name)

    def test_what_no_statement_of_mariadb_holds_is_refused_unsent(
        self,
    ) -> None:
        if self.backend != 'mysql':
            self.skipTest('statements of any length are taken')
        longer = [f'{each} {"x" * 240}' for each in range(70_000)]
        resource_id = self.world.resource.id
        for name, arguments in (
            ('service_heartbeat_many', ()),
            ('resource_tags_get_many', ()),
            ('resource_tags_set', (resource_id,)),
        ):
            call = getattr(db.api, name)
            with self.commands() as sent:
                error = self.assertRaises(
                    db_exception.DBDataError,
                    call,
                    self.context,
                    *arguments,
                    longer,
                )
            self.assertIn('max_allowed_packet', str(error))
            self.assertLess(sum(map(len, sent)), 2**20)
        tags = db.api.resource_tags_get(self.user, resource_id)
        self.assertEqual(['known'], tags)


class TestStatements(LongListsTestCase):
    def test_the_text_of_one_is_that_of_all(self) -> None:
        if self.backend == 'mysql':
            self.skipTest('PyMySQL writes the values into the text')
        texts: set[str] = set()

        def note(_: Any, __: Any, text: str, *___: Any) -> None:
            texts.add(text)

        engine = self.database.engine('read')
        sa.event.listen(engine, 'before_cursor_execute', note)
        self.addCleanup(sa.event.remove, engine, 'before_cursor_execute', note)
        for number in (9, 10, 2000):
            wanted = dict.fromkeys(
                ('name', 'tags', 'tags-any', 'not-tags', 'not-tags-any'),
                unknown(number),
            )
            db.api.resource_get_all(self.user, wanted)
        self.assertEqual(1, len(texts))

    def test_it_is_built_once_and_keeps_no_values(self) -> None:
        sizes = []
        for start in range(3):
            tags = [f'{start} {each}' for each in range(20)]
            for wanted in (
                {'tags': tags},
                {'tags': tags[:2]},
                {'tags-any': tags},
                {'tags-any': tags[:2]},
                {'not-tags': tags},
                {'not-tags-any': tags},
                {'metadata': dict.fromkeys(tags, 'v')},
                {'metadata': dict.fromkeys(tags[:2], 'v')},
                {'name': tags},
            ):
                db.api.resource_get_all(self.user, wanted)
            sizes.append(listing._page_statement.cache_info().currsize)
        self.assertEqual(sizes[:1] * 3, sizes)


class TestExactness(LongListsTestCase):
    def named(self, wanted: Any) -> list[Any]:
        rows = db.api.resource_get_all(self.user, {'name': wanted})
        return sorted(row.name for row in rows)

    def test_texts_are_compared_code_by_code(self) -> None:
        for text in HOSTILE:
            db.api.resource_create(self.user, {'name': text})
        everybody = sorted(['known', *HOSTILE])
        for text in HOSTILE:
            others = [each for each in HOSTILE if each != text]
            many = [f'{text[:254]}.', *unknown(1000)]
            self.assertEqual([text], self.named([text, *many]))
            self.assertEqual(sorted(others), self.named([*others, *many]))
            self.assertEqual(
                [each for each in everybody if each != text],
                self.named(db.api.Not([text, *many])),
            )

    def test_null_is_a_value_among_many(self) -> None:
        db.api.resource_create(self.user, {})
        many = unknown(1000)
        self.assertEqual(['known'], self.named([*many, 'known']))
        rows = db.api.resource_get_all(self.user, {'name': [*many, None]})
        self.assertEqual([None], [row.name for row in rows])
        wanted = {'name': db.api.Not([*many, 'known'])}
        rows = db.api.resource_get_all(self.user, wanted)
        self.assertEqual([None], [row.name for row in rows])
        self.assertEqual(['known'], self.named(db.api.Not([*many, None])))

    def test_tags_and_metadata_come_back_as_they_went(self) -> None:
        texts = [text for text in HOSTILE if text]
        resource_id = self.world.resource.id
        metadata = dict(zip(texts, HOSTILE, strict=False))
        db.api.resource_tags_set(self.user, resource_id, texts)
        db.api.resource_metadata_set(self.user, resource_id, metadata)
        self.assertEqual(
            sorted(texts), db.api.resource_tags_get(self.user, resource_id)
        )
        self.assertEqual(metadata, self.world.metadata())
        for wanted in ({'tags': texts}, {'metadata': metadata}):
            found = db.api.resource_get_all(self.user, wanted)
            self.assertEqual([resource_id], [row.id for row in found])
        for key in metadata:
            wanted = {'metadata': {**metadata, key: f'{metadata[key][:254]}.'}}
            self.assertEqual([], db.api.resource_get_all(self.user, wanted))

    def test_numbers_and_times_are_compared_by_value(self) -> None:
        db.api.quota_create(self.context, 'p', 'gigabytes', -1)
        made = db.api.resource_create(self.user, {'size': 2**62})
        numbers = [*range(1, 1000), 2**62 - 1, 2**63 - 1]
        moments = [
            datetime.datetime(2001, 1, 1) + datetime.timedelta(hours=hour)
            for hour in range(1000)
        ]
        for name, values in (('size', numbers), ('created_at', moments)):
            for wanted, found in (
                ([*values, made[name]], True),
                (values, False),
                (db.api.Not(values), True),
                (db.api.Not([*values, made[name]]), False),
            ):
                rows = db.api.resource_get_all(
                    self.user, {'id': made.id, name: wanted}
                )
                self.assertEqual(found, bool(rows), (name, found))

    def test_an_id_that_only_begins_so_is_another_one(self) -> None:
        service = self.world.service
        longer = [f'{service.id}{each}' for each in range(10)]
        for beats in (longer, [(each, 0) for each in longer]):
            reached = db.api.service_heartbeat_many(self.context, beats)
            self.assertEqual(0, reached)

    def test_of_pairs_each_counts_by_itself(self) -> None:
        admin = self.context
        services = [
            db.api.service_register(admin, {'host': f'h{n}', 'binary': 'b'})
            for n in range(4)
        ]
        db.api.service_unregister(admin, services[3].id)
        latest, old, plain, ended = (each.id for each in services)
        beats: list[str | tuple[str, int]] = [
            (latest, 1),
            (old, 2),
            plain,
            (ended, 1),
        ]
        more = [(each, 1) for each in unknown(2000)]
        self.assertEqual(
            2, db.api.service_heartbeat_many(admin, [*beats, *more])
        )


class TestManyTags(LongListsTestCase):
    def test_what_has_all_of_them_is_found_and_nothing_else(self) -> None:
        tags = unknown(TAGS)
        resource_id = self.world.resource.id
        almost = db.api.resource_create(self.user, {'tags': tags[1:]})
        db.api.resource_create(self.user, {'tags': tags[:1]})
        db.api.resource_tags_set(self.user, resource_id, [*tags, 'more'])
        for wanted, found in (
            (tags, [resource_id]),
            ([*tags, *tags], [resource_id]),
            (tags[1:], sorted([resource_id, almost.id])),
            ([*tags, 'unknown'], []),
        ):
            rows = db.api.resource_get_all(self.user, {'tags': wanted})
            self.assertEqual(found, [row.id for row in rows])

    def test_metadata_too(self) -> None:
        metadata = dict.fromkeys(unknown(TAGS), 'v')
        resource_id = self.world.resource.id
        db.api.resource_metadata_set(self.user, resource_id, metadata)
        changed = {**metadata, 'unknown 7': 'w'}
        db.api.resource_create(self.user, {'metadata': changed})
        rows = db.api.resource_get_all(self.user, {'metadata': metadata})
        self.assertEqual([resource_id], [row.id for row in rows])

    def test_more_than_a_few_are_found_by_their_index(self) -> None:
        if self.backend != 'sqlite':
            self.skipTest('a server reads all of a small table')
        plan: list[str] = []
        engine = self.database.engine('read')
        statement = sa.select(models.ResourceTag.resource_id).where(
            in_list.rows('asked', models.ResourceTag.__table__.c.tag).c.tag
            == models.ResourceTag.tag
        )
        with engine.connect() as connection:
            compiled = statement.compile(connection)
            plan = [
                row.detail
                for row in connection.exec_driver_sql(
                    f'EXPLAIN QUERY PLAN {compiled}', ('[]',)
                )
            ]
        self.assertIn('ix_resource_tags_tag (tag=?)', ' '.join(plan))


class TestReservations(LongListsTestCase):
    def test_more_of_them_than_postgresql_has_parameters_are_committed(
        self,
    ) -> None:
        number = 70_000
        reservation: Any = models.Reservation.__table__
        usage: Any = models.QuotaUsage.__table__
        later = datetime.datetime(2100, 1, 1)
        ids = [f'{each:036}' for each in range(number)]
        with self.database.engine().begin() as connection:
            for start in range(0, number, 5000):
                connection.execute(
                    sa.insert(reservation),
                    [
                        {
                            'id': each,
                            'project_id': 'p',
                            'resource': 'resources',
                            'delta': 1,
                            'expire_at': later,
                        }
                        for each in ids[start : start + 5000]
                    ],
                )
            connection.execute(
                sa.update(usage)
                .where(usage.c.resource == 'resources')
                .values(reserved=number + 1)
            )
        db.api.reservation_commit(self.user, ids)
        usages = db.api.quota_usage_get_all(self.user)['resources']
        self.assertEqual(
            (1, number + 1), (usages['reserved'], usages['in_use'])
        )
