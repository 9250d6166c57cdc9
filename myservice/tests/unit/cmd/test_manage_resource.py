"""myservice-manage resource: what operators see of resources, and free."""

import itertools
from typing import Any
from unittest import mock

from myservice import db
from myservice import exception
from myservice.tests import factories
from myservice.tests.unit.cmd import test_manage

HOSTILE = (
    "it's",
    '"quoted"',
    '%',
    '%s %(x)s {x} {0}',
    '_',
    '\\',
    '\N{GRINNING FACE}\N{CAT FACE}',
    "'; DROP TABLE resources; --",
    '[bold]x[/bold] :smile:',
    '$state_path',
    'a,b=c:d',
    ' x ',
    '\N{LATIN SMALL LETTER U WITH DIAERESIS}',
)

HEADINGS = [
    *('ID', 'Project', 'Name', 'Kind', 'Size', 'Status', 'Service'),
    'Created',
]


class ResourceTestCase(test_manage.ManageTestCase):
    """A test with the tables."""

    def setUp(self) -> None:
        super().setUp()
        self.done('db', 'sync')

    def table(self, *arguments: str) -> list[list[str]]:
        """Return the cells of a table that answers, the headings first."""
        return [
            [cell.strip() for cell in line[1:-1].split(line[0])]
            for line in self.done('resource', *arguments).splitlines()
            if line[0] in '┃│'
        ]

    def resource(self, *arguments: str) -> Any:
        """Return what the program answers as JSON."""
        return self.answer('resource', *arguments)

    def names(self, *arguments: str) -> list[str | None]:
        """Return the names that "resource list" gives, in order."""
        return [found['name'] for found in self.resource('list', *arguments)]

    def create(self, name: str | None = None, **values: Any) -> str:
        """Create a resource, and return its id."""
        return db.api.resource_create(
            self.context, {'project_id': 'p1', 'name': name} | values
        ).id

    def claim(self, resource_id: str) -> db.api.Claim:
        """Let a new service claim a resource."""
        service = factories.create_service()
        return db.api.resource_claim(self.context, resource_id, service.id)

    def get(self, resource_id: str) -> db.api.ResourceRow:
        """Return a resource as it is now."""
        return db.api.resource_get(self.context, resource_id)

    def in_json(self, row: db.api.ResourceRow) -> dict[str, Any]:
        """Return all columns of a row as they are in JSON."""
        return {
            name: value.isoformat() if hasattr(value, 'year') else value
            for name, value in dict(row).items()
        }


class TestList(ResourceTestCase):
    def test_it_shows_a_table(self) -> None:
        first = self.create('a', kind='k', size=3, status='ready')
        claim = self.claim(first)
        second = self.create()
        created = [
            str(self.get(resource_id).created_at.replace(microsecond=0))
            for resource_id in (first, second)
        ]
        heading, *rows = self.table('list')
        self.assertEqual(created, [row[-1] for row in rows])
        self.assertEqual(
            [
                HEADINGS,
                [first, 'p1', 'a', 'k', '3', 'ready', claim.service_id],
                [second, 'p1', '-', '-', '0', 'requested', '-'],
            ],
            [heading, *(row[:-1] for row in rows)],
        )

    def test_long_adds_metadata_and_tags(self) -> None:
        self.create('a', metadata={'k': 'v', 'b': 'c=d'}, tags=['t', 's'])
        self.create('b')
        heading, first, second = self.table('list', '--long')
        self.assertEqual([*HEADINGS, 'Metadata', 'Tags'], heading)
        self.assertEqual(['b=c=d, k=v', 's, t'], first[8:])
        self.assertEqual(['-', '-'], second[8:])
        self.assertEqual(['a', 'b'], [first[2], second[2]])

    def test_json_has_every_column_and_metadata_and_tags(self) -> None:
        first = self.create('a', metadata={'k': 'v'}, tags=['t', 's'], size=2)
        self.claim(first)
        second = self.create('b')
        expected = [
            self.in_json(self.get(first))
            | {'metadata': {'k': 'v'}, 'tags': ['s', 't']},
            self.in_json(self.get(second)) | {'metadata': {}, 'tags': []},
        ]
        for arguments in ((), ('--long',)):
            self.assertEqual(expected, self.resource('list', *arguments))

    def test_nothing_is_an_empty_list(self) -> None:
        self.assertEqual([], self.resource('list'))
        self.assertEqual([HEADINGS], self.table('list'))
        self.assertEqual(
            [[*HEADINGS, 'Metadata', 'Tags']], self.table('list', '--long')
        )

    def test_it_reads_a_page_in_one_call_each(self) -> None:
        for number in range(5):
            self.create(f'r{number}', metadata={'k': 'v'}, tags=['t'])

        def calls(*arguments: str) -> list[int]:
            names = (
                'resource_get_all',
                'resource_metadata_get_many',
                'resource_tags_get_many',
            )
            before = db.api.statistics().calls
            self.done('resource', 'list', *arguments)
            after = db.api.statistics().calls
            changed = {
                name: after[name] - before.get(name, 0)
                for name in after
                if after[name] != before.get(name, 0)
            }
            self.assertEqual(set(), set(changed) - set(names))
            return [changed.get(name, 0) for name in names]

        self.assertEqual([1, 1, 1], calls('--json'))
        self.assertEqual([1, 1, 1], calls('--long'))
        self.assertEqual([1, 0, 0], calls())

    def test_what_was_destroyed_is_not_listed(self) -> None:
        db.api.resource_destroy(self.context, self.create('a'))
        self.create('b')
        self.assertEqual(['b'], self.names())


class TestFilters(ResourceTestCase):
    def setUp(self) -> None:
        super().setUp()
        first = self.create(
            'alpha',
            kind='k1',
            status='ready',
            tags=['t1', 'both'],
            metadata={'m': '1', 'both': 'x', 'empty': ''},
        )
        self.service_id = self.claim(first).service_id
        self.create(
            'beta',
            project_id='p2',
            kind='k2',
            tags=['t2', 'both'],
            metadata={'m': '2', 'both': 'x', 'sum': '1=1'},
        )

    def test_each_filter(self) -> None:
        arguments: tuple[str, ...]
        for arguments in (
            ('--project', 'p1'),
            ('--name', 'alpha'),
            ('--name-contains', 'lph'),
            ('--kind', 'k1'),
            ('--status', 'ready'),
            ('--service', self.service_id),
            ('--claimed',),
            ('--tag', 't1'),
            ('--tag', 'both', '--tag', 't1'),
            ('--tag-any', 't1', '--tag-any', 'no'),
            ('--not-tag', 't2', '--not-tag', 'both'),
            ('--not-tag-any', 't2', '--not-tag-any', 'no'),
            ('--metadata', 'm=1'),
            ('--metadata', 'both=x', '--metadata', 'm=1'),
            ('--metadata', 'empty='),
        ):
            self.assertEqual(['alpha'], self.names(*arguments), arguments)
        for arguments in (
            ('--project', 'p2'),
            ('--name', 'beta'),
            ('--name-contains', 'et'),
            ('--kind', 'k2'),
            ('--status', 'requested'),
            ('--free',),
            ('--tag', 't2'),
            ('--tag-any', 't2'),
            ('--not-tag', 't1'),
            ('--not-tag-any', 't1'),
            ('--tag', 'both', '--tag-any', 't2', '--not-tag', 't1'),
            ('--metadata', 'm=2', '--metadata', 'm=2'),
            ('--metadata', 'sum=1=1'),
            ('--project', 'p2', '--free', '--tag', 'both', '--kind', 'k2'),
        ):
            self.assertEqual(['beta'], self.names(*arguments), arguments)

    def test_all_of_them_have_to_hold(self) -> None:
        arguments: tuple[str, ...]
        for arguments in (
            ('--tag', 't1', '--tag', 't2'),
            ('--tag', 'no'),
            ('--tag-any', 'no'),
            ('--not-tag', 'both'),
            ('--not-tag-any', 't1', '--not-tag-any', 't2'),
            ('--metadata', 'm=1', '--metadata', 'sum=1=1'),
            ('--metadata', 'm=3'),
            ('--project', 'p1', '--free'),
            ('--service', self.service_id, '--free'),
            ('--service', 'nonsense'),
            ('--name', 'alph'),
            ('--name', 'ALPHA'),
            ('--name', ''),
            ('--name-contains', 'ALPHA'),
            ('--kind', ''),
        ):
            self.assertEqual([], self.names(*arguments), arguments)
        for arguments in (
            (),
            ('--tag', 'both'),
            ('--tag-any', 't1', '--tag-any', 't2'),
            ('--not-tag', 't1', '--not-tag', 't2'),
            ('--not-tag-any', 'no'),
            ('--metadata', 'both=x'),
            ('--name-contains', 'a'),
            ('--name-contains', ''),
        ):
            self.assertEqual(
                ['alpha', 'beta'], self.names(*arguments), arguments
            )

    def test_what_has_no_name_contains_not_even_nothing(self) -> None:
        self.create()
        self.assertEqual(['alpha', 'beta', None], self.names())
        found = self.names('--name-contains', '')
        self.assertEqual(['alpha', 'beta'], found)

    def test_the_table_is_filtered_too(self) -> None:
        rows = self.table('list', '--long', '--tag', 't2')
        self.assertEqual(['beta'], [row[2] for row in rows[1:]])

    def test_filters_that_exclude_each_other_are_refused(self) -> None:
        for arguments in (
            ('--claimed', '--free'),
            ('--name', 'a', '--name-contains', 'a'),
        ):
            code, out, err = self.run_it('resource', 'list', *arguments)
            self.assertEqual((2, ''), (code, out))
            self.assertIn('not allowed with', err)

    def test_metadata_that_is_no_pair_is_refused(self) -> None:
        for arguments, reason in (
            (('nonsense',), "'nonsense' is not of the form KEY=VALUE"),
            (('',), "'' is not of the form KEY=VALUE"),
            (('m=1', 'm=2'), "'m' cannot have two values at once"),
        ):
            options = [f'--metadata={argument}' for argument in arguments]
            for more in ((), ('--json',)):
                self.assertEqual(
                    f'Invalid input for metadata: {reason}.',
                    self.refused(2, 'resource', 'list', *options, *more),
                )
        self.assertEqual(
            'Invalid input for metadata key: it is empty.',
            self.refused(2, 'resource', 'list', '--metadata', '=x'),
        )

    def test_what_no_row_can_have_is_refused(self) -> None:
        for option, value in (
            ('--tag', ''),
            ('--tag', 't' * 256),
            ('--tag-any', ''),
            ('--not-tag', ''),
            ('--not-tag-any', ''),
            ('--name', 'n' * 256),
            ('--project', '\udcff'),
            ('--metadata', '\udcff'),
            ('--metadata', '\udcff=\udcff'),
        ):
            message = self.refused(2, 'resource', 'list', option, value)
            self.assertIn('Invalid input for ', message)

    def test_what_is_not_asked_for_is_no_filter(self) -> None:
        # Even an empty one takes from a list the index of its order.
        with mock.patch.object(
            db.api, 'resource_get_all', return_value=[]
        ) as asked:
            self.resource('list')
        self.assertEqual({None}, set(asked.call_args.args[1].values()))


class TestPages(ResourceTestCase):
    def pages(self, *arguments: str) -> list[list[str]]:
        """Return the names of all pages, each after the one before."""
        pages: list[list[str]] = []
        marker: tuple[str, ...] = ()
        while True:
            page = self.resource('list', *arguments, *marker)
            if not page:
                return pages
            pages.append([found['name'] for found in page])
            marker = ('--marker', page[-1]['id'])

    def create_25(self) -> list[str]:
        """Create resources of three kinds, one of them none."""
        names = [f'r{number:02}' for number in range(25)]
        for number, name in enumerate(names):
            kind = (None, 'k1', 'k2')[number % 3]
            self.create(name, kind=kind, tags=['t'])
        return names

    def test_paging_gives_each_once(self) -> None:
        names = self.create_25()
        pages = self.pages('--limit', '7')
        self.assertEqual([7, 7, 7, 4], [len(page) for page in pages])
        self.assertEqual(names, list(itertools.chain(*pages)))
        for arguments in (
            ('--sort', 'name:desc'),
            ('--sort', 'kind'),
            ('--sort', 'kind:desc-nullsfirst,name'),
            ('--sort', 'size,status', '--tag', 't'),
        ):
            pages = self.pages('--limit', '4', *arguments)
            found = list(itertools.chain(*pages))
            self.assertEqual(names, sorted(found), arguments)
            self.assertEqual(found, self.names(*arguments), arguments)

    def test_the_table_has_the_same_pages(self) -> None:
        names = self.create_25()
        found: list[str] = []
        marker: tuple[str, ...] = ()
        while rows := self.table('list', '--limit', '10', *marker)[1:]:
            self.assertTrue(len(rows) <= 10)
            found += [row[2] for row in rows]
            marker = ('--marker', rows[-1][0])
        self.assertEqual(names, found)

    def test_a_marker_that_was_destroyed_marks_its_place(self) -> None:
        ids = [self.create(name) for name in 'abc']
        db.api.resource_destroy(self.context, ids[1])
        self.assertEqual(['c'], self.names('--marker', ids[1]))

    def test_limits(self) -> None:
        for name in 'abc':
            self.create(name)
        self.assertEqual(['a', 'b'], self.names('--limit', '2'))
        self.assertEqual([], self.names('--limit', '0'))
        self.assertEqual(['a', 'b', 'c'], self.names('--limit', '99'))

    def test_it_is_sorted_as_told(self) -> None:
        for name, size in (('b', 2), ('a', 1), ('c', 2)):
            self.create(name, size=size)
        self.assertEqual(['b', 'a', 'c'], self.names())
        for order, expected in (
            ('created_at:desc', ['c', 'a', 'b']),
            ('name', ['a', 'b', 'c']),
            ('size,name:desc', ['a', 'c', 'b']),
            ('size:desc,name:asc', ['b', 'c', 'a']),
        ):
            self.assertEqual(expected, self.names('--sort', order), order)

    def test_it_is_sorted_by_creation_and_not_by_id(self) -> None:
        first = self.create('a')
        self.create('b')
        self.execute(
            "UPDATE resources SET created_at = '2100-01-01 00:00:00' "
            f"WHERE id = '{first}'"
        )
        self.assertEqual(['b', 'a'], self.names())

    def test_what_makes_no_sense_is_refused(self) -> None:
        for arguments, code in (
            (('--sort', 'nonsense'), 2),
            (('--sort', ''), 2),
            (('--sort', 'name,name'), 2),
            (('--sort', 'name:sideways'), 2),
            (('--limit', '-1'), 2),
            (('--marker', 'nonsense'), 1),
            (('--marker', '\N{CAT FACE}%'), 1),
        ):
            self.refused(code, 'resource', 'list', *arguments)
        code, out, err = self.run_it('resource', 'list', '--limit', 'x')
        self.assertEqual((2, ''), (code, out))
        self.assertIn("invalid int value: 'x'", err)


class TestHostile(ResourceTestCase):
    def test_any_text_is_found_by_each_filter_and_alone(self) -> None:
        for text in HOSTILE:
            self.create(
                text,
                project_id=text,
                kind=text,
                status=text,
                tags=[text],
                metadata={text.replace('=', ''): text},
            )
        for text in HOSTILE:
            for option in ('--name', '--project', '--kind', '--status'):
                found = self.names(option, text)
                self.assertEqual([text], found, (option, text))
            self.assertEqual([text], self.names('--tag', text))
            pair = f'{text.replace("=", "")}={text}'
            self.assertEqual([text], self.names('--metadata', pair))
            self.assertEqual(
                [other for other in HOSTILE if text in other],
                self.names('--name-contains', text),
            )
        self.assertEqual(list(HOSTILE), self.names())

    def test_it_is_shown_as_it_is(self) -> None:
        for text in HOSTILE:
            made = self.create(text, tags=[text], metadata={'k': text})
            self.assertEqual(text, self.resource('show', made)['name'])
            for command in (('list', '--long'), ('show', made)):
                out = self.done('resource', *command)
                self.assertIn(f' {text} ', out)
                self.assertIn(f'k={text} ', out)

    def test_a_long_text_is_not_cut(self) -> None:
        made = self.create('n' * 255)
        for command in (('list',), ('show', made)):
            self.assertIn('n' * 255, self.done('resource', *command))

    def test_what_a_terminal_would_obey_is_escaped(self) -> None:
        text = 'a\x1b[2J\nb\N{RIGHT-TO-LEFT OVERRIDE}'
        escaped = r'a\x1b[2J\nb\u202e'
        made = self.create(text, kind=text, tags=[text], metadata={text: text})
        expected = [escaped, escaped, f'{escaped}={escaped}', escaped]
        (row,) = self.table('list', '--long')[1:]
        self.assertEqual(expected, [*row[2:4], *row[8:]])
        shown = dict(self.table('show', made))
        self.assertEqual(
            expected,
            [shown[name] for name in ('name', 'kind', 'metadata', 'tags')],
        )
        (found,) = self.resource('list')
        self.assertEqual(
            [text, text, [text], {text: text}],
            [found[name] for name in ('name', 'kind', 'tags', 'metadata')],
        )
        project = self.create(project_id=text, status=text)
        row = self.table('list', '--marker', made)[1]
        self.assertEqual([project, escaped, escaped], [row[0], row[1], row[5]])


class TestShow(ResourceTestCase):
    def test_it_gives_every_column_and_metadata_and_tags(self) -> None:
        made = self.create('a', metadata={'k': 'v'}, tags=['t', 's'])
        self.claim(made)
        expected = self.in_json(self.get(made))
        self.assertEqual(
            expected | {'metadata': {'k': 'v'}, 'tags': ['s', 't']},
            self.resource('show', made),
        )
        heading, *rows = self.table('show', made)
        self.assertEqual(['Field', 'Value'], heading)
        self.assertEqual(
            [*expected, 'metadata', 'tags'], [name for name, _ in rows]
        )
        shown = dict(rows)
        self.assertEqual(
            ['a', 'k=v', 's, t', expected['service_id'], '1'],
            [
                shown[name]
                for name in (
                    *('name', 'metadata', 'tags', 'service_id'),
                    'claim_generation',
                )
            ],
        )

    def test_what_is_not_there_is_a_dash(self) -> None:
        shown = dict(self.table('show', self.create()))
        for name in ('name', 'kind', 'service_id', 'metadata', 'tags'):
            self.assertEqual('-', shown[name], name)


class TestRelease(ResourceTestCase):
    def test_it_frees_the_resource_and_says_who_held_it(self) -> None:
        made = self.create('a')
        claim = self.claim(made)
        self.assertEqual(
            {
                'id': made,
                'released': True,
                'service_id': claim.service_id,
                'claim_generation': claim.generation,
            },
            self.resource('release', made),
        )
        self.assertIsNone(self.get(made).service_id)
        again = self.claim(made)
        self.assertTrue(again.generation > claim.generation)
        shown = dict(self.table('release', made))
        self.assertEqual(again.service_id, shown['service_id'])
        self.assertIsNone(self.get(made).service_id)

    def test_the_holder_is_told(self) -> None:
        made = self.create()
        claim = self.claim(made)
        self.done('resource', 'release', made)
        self.assertRaises(
            exception.ClaimLost,
            db.api.resource_update,
            self.context,
            made,
            {'status': 'ready'},
            claim=claim,
        )

    def test_others_keep_theirs(self) -> None:
        service = factories.create_service()
        made, other = self.create(), self.create()
        for resource_id in (made, other):
            db.api.resource_claim(self.context, resource_id, service.id)
        self.done('resource', 'release', made)
        self.assertEqual(service.id, self.get(other).service_id)

    def test_what_nobody_holds_is_refused(self) -> None:
        made = self.create()
        before = self.get(made)
        for more in ((), ('--json',)):
            self.assertEqual(
                f'Resource {made} is not claimed by any service.',
                self.refused(1, 'resource', 'release', made, *more),
            )
        self.assertEqual(dict(before), dict(self.get(made)))

    def test_who_claims_it_in_between_keeps_it(self) -> None:
        made = self.create()
        for by_the_same in (False, True):
            first = self.claim(made)
            message, second = self.release_late(first, by_the_same)
            lost = exception.ClaimLost(**first._asdict())
            self.assertEqual(str(lost), message)
            row = self.get(made)
            self.assertEqual(
                second,
                db.api.Claim(made, row.service_id, row.claim_generation),
            )
            db.api.resource_release(self.context, second)

    def release_late(
        self, claim: db.api.Claim, by_the_same: bool
    ) -> tuple[str, db.api.Claim]:
        """Release a claim that changes hands after it was read."""
        resource_id = claim.resource_id
        get = db.api.resource_get
        claims: list[db.api.Claim] = []

        def early(*arguments: Any) -> db.api.ResourceRow:
            row = get(*arguments)
            if not claims:
                db.api.resource_release(self.context, claim)
                claims.append(self.claim_anew(claim, by_the_same))
            return row

        with mock.patch.object(db.api, 'resource_get', early):
            message = self.refused(1, 'resource', 'release', resource_id)
        return message, claims[0]

    def claim_anew(
        self, claim: db.api.Claim, by_the_same: bool
    ) -> db.api.Claim:
        """Claim what was released, for the same service or another."""
        if not by_the_same:
            return self.claim(claim.resource_id)
        return db.api.resource_claim(
            self.context, claim.resource_id, claim.service_id
        )


class TestUsage(ResourceTestCase):
    def test_an_unknown_resource_is_refused(self) -> None:
        destroyed = self.create()
        db.api.resource_destroy(self.context, destroyed)
        for command in ('show', 'release'):
            for unknown in ('nonsense', '', "'%s\N{CAT FACE}", destroyed):
                self.assertEqual(
                    f'Resource {unknown} could not be found.',
                    self.refused(1, 'resource', command, unknown),
                )
            self.refused(2, 'resource', command, '\udcff')

    def test_what_is_missing_or_too_much_is_told(self) -> None:
        for arguments in (
            (),
            ('nonsense',),
            ('list', 'x'),
            ('list', '--metadata'),
            ('show',),
            ('show', 'x', 'y'),
            ('release',),
            ('release', 'x', '--long'),
        ):
            code, out, err = self.run_it('resource', *arguments)
            self.assertEqual((2, ''), (code, out), arguments)
            self.assertIn('usage: ', err)

    def test_help_names_the_exit_codes_everywhere(self) -> None:
        for arguments in ((), ('list',), ('show',), ('release',)):
            code, out, err = self.run_it('resource', *arguments, '--help')
            self.assertEqual((0, ''), (code, err))
            self.assertIn(test_manage.CODES, ' '.join(out.split()), arguments)

    def test_a_database_without_tables_is_told_in_one_line(self) -> None:
        self.execute('DROP TABLE resource_tags')
        self.execute('DROP TABLE resource_metadata')
        self.execute('DROP TABLE resources')
        for arguments in (('list',), ('show', 'x'), ('release', 'x')):
            message = self.refused(2, 'resource', *arguments)
            self.assertIn('no such table: resources', message)
