"""myservice-manage quota: limits, usages, and what puts them right."""

import json
import os
import pty
import subprocess
import sys
from typing import Any

import sqlalchemy as sa

from myservice import db
from myservice import fixtures
from myservice.db import models
from myservice.db.quotas import counters
from myservice.tests import factories
from myservice.tests.unit.cmd import test_manage

UNKNOWN_RESOURCE = (
    'There is no quota for nonsense. These have one: gigabytes, resources; '
    '[quota] default_limits names them.'
)
DEFAULTS = {
    'resources': {'limit': 100, 'source': 'default_limits'},
    'gigabytes': {'limit': 1000, 'source': 'default_limits'},
}


class QuotaTestCase(test_manage.ManageTestCase):
    """A test with the tables."""

    def setUp(self) -> None:
        super().setUp()
        self.done('db', 'sync')

    def configure_quota(self, *lines: str) -> None:
        """Write the configuration file, with these lines in [quota]."""
        self.configure('\n'.join(['[quota]', *lines]))

    def rows(self, out: str) -> list[list[str]]:
        """Return the cells of a table, the headings first."""
        return [
            [cell.strip() for cell in line[1:-1].split(line[0])]
            for line in out.splitlines()
            if line[0] in '┃│'
        ]

    def table(self, *arguments: str) -> list[list[str]]:
        """Return the cells of what the program answers as a table."""
        return self.rows(self.done('quota', *arguments))

    def quota(self, *arguments: str) -> Any:
        """Return what the program answers as JSON."""
        return self.answer('quota', *arguments)

    def limit(self, project_id: str, resource: str) -> int:
        """Return the limit that counts."""
        usages = db.api.quota_usage_get_all(self.context, project_id)
        return usages[resource]['limit']

    def reserve(self, project_id: str, **deltas: int) -> list[str]:
        """Reserve parts of a project's quota."""
        return db.api.quota_reserve(self.context, deltas, project_id)

    def drift(self, project_id: str, reserved: int) -> None:
        """Say behind the back of the program what is reserved."""
        self.execute(
            f'UPDATE quota_usages SET reserved = {reserved} '
            f"WHERE project_id = '{project_id}'"
        )


class TestShow(QuotaTestCase):
    def test_a_project_of_which_nothing_is_known_has_the_defaults(
        self,
    ) -> None:
        self.assertEqual(
            {
                'resources': {'limit': 100, 'in_use': 0, 'reserved': 0},
                'gigabytes': {'limit': 1000, 'in_use': 0, 'reserved': 0},
            },
            self.quota('show', 'p1'),
        )

    def test_it_shows_what_is_in_use_and_reserved(self) -> None:
        reservations = self.reserve('p1', gigabytes=10)
        db.api.reservation_commit(self.context, reservations, 'p1')
        self.reserve('p1', gigabytes=7, resources=2)
        self.assertEqual(
            {
                'resources': {'limit': 100, 'in_use': 0, 'reserved': 2},
                'gigabytes': {'limit': 1000, 'in_use': 10, 'reserved': 7},
            },
            self.quota('show', 'p1'),
        )
        self.assertEqual(
            [
                ['Resource', 'Limit', 'In use', 'Reserved'],
                ['resources', '100', '0', '2'],
                ['gigabytes', '1000', '10', '7'],
            ],
            self.table('show', 'p1'),
        )

    def test_unlimited_is_a_word_in_the_table_and_minus_1_in_json(
        self,
    ) -> None:
        db.api.quota_create(self.context, 'p1', 'gigabytes', -1)
        self.assertEqual(
            ['gigabytes', 'unlimited', '0', '0'], self.table('show', 'p1')[2]
        )
        self.assertEqual(-1, self.quota('show', 'p1')['gigabytes']['limit'])

    def test_a_project_without_a_name_is_refused(self) -> None:
        self.assertIn(
            "'' is not a project", self.refused(2, 'quota', 'show', '')
        )


class TestSet(QuotaTestCase):
    def test_it_creates_and_then_changes_the_limit(self) -> None:
        for limit in (5, 7, 0):
            self.assertEqual(
                {'project_id': 'p1', 'resource': 'gigabytes', 'limit': limit},
                self.quota('set', 'p1', 'gigabytes', str(limit)),
            )
            self.assertEqual(limit, self.limit('p1', 'gigabytes'))
        self.assertEqual(1000, self.limit('p2', 'gigabytes'))

    def test_changing_it_keeps_the_row(self) -> None:
        self.quota('set', 'p1', 'gigabytes', '5')
        before = db.api.quota_get(self.context, 'p1', 'gigabytes')
        self.quota('set', 'p1', 'gigabytes', '6')
        after = db.api.quota_get(self.context, 'p1', 'gigabytes')
        self.assertEqual((before.id, 6), (after.id, after.limit))

    def test_it_answers_as_a_table(self) -> None:
        self.assertEqual(
            [
                ['Field', 'Value'],
                ['project_id', 'p1'],
                ['resource', 'gigabytes'],
                ['limit', '5'],
            ],
            self.table('set', 'p1', 'gigabytes', '5'),
        )

    def test_no_limit_at_all_is_a_word_or_minus_1(self) -> None:
        for word in ('unlimited', '-1'):
            self.quota('set', 'p1', 'gigabytes', '5')
            answer = self.quota('set', 'p1', 'gigabytes', word)
            self.assertEqual(-1, answer['limit'])
            self.assertEqual(-1, self.limit('p1', 'gigabytes'))
            table = self.table('set', 'p1', 'gigabytes', word)
            self.assertEqual(['limit', 'unlimited'], table[-1])

    def test_what_is_no_limit_is_refused_in_one_line(self) -> None:
        for limit, reason in (
            ('many', "'many' is neither a number nor the word unlimited"),
            ('', "'' is neither a number nor the word unlimited"),
            ('1.5', "'1.5' is neither a number nor the word unlimited"),
            ('-2', '-2 is neither a number from 0 on nor -1'),
            (str(2**63), f'{2**63} is out of range'),
            ('9' * 5000, 'is neither a number'),
        ):
            message = self.refused(2, 'quota', 'set', 'p1', 'gigabytes', limit)
            self.assertIn('Invalid input for limit: ', message)
            self.assertIn(reason, message)
        self.assertEqual([], db.api.quota_get_all(self.context))

    def test_a_resource_without_a_quota_is_refused(self) -> None:
        self.assertEqual(
            UNKNOWN_RESOURCE,
            self.refused(2, 'quota', 'set', 'p1', 'nonsense', '5'),
        )


class TestUnset(QuotaTestCase):
    def test_the_limit_of_the_class_counts_again(self) -> None:
        db.api.quota_class_create(self.context, 'default', 'gigabytes', 50)
        self.quota('set', 'p1', 'gigabytes', '5')
        self.assertEqual(
            {'project_id': 'p1', 'resource': 'gigabytes', 'limit': 50},
            self.quota('unset', 'p1', 'gigabytes'),
        )
        self.assertEqual(50, self.limit('p1', 'gigabytes'))

    def test_without_one_in_the_class_the_default_counts_again(self) -> None:
        self.quota('set', 'p1', 'gigabytes', '5')
        self.assertEqual(
            [
                ['Field', 'Value'],
                ['project_id', 'p1'],
                ['resource', 'gigabytes'],
                ['limit', '1000'],
            ],
            self.table('unset', 'p1', 'gigabytes'),
        )

    def test_no_limit_at_all_is_a_word_in_the_table(self) -> None:
        db.api.quota_class_create(self.context, 'default', 'gigabytes', -1)
        self.quota('set', 'p1', 'gigabytes', '5')
        table = self.table('unset', 'p1', 'gigabytes')
        self.assertEqual(['limit', 'unlimited'], table[-1])

    def test_of_a_resource_that_has_no_quota_any_more(self) -> None:
        for answer, expected in (
            (self.quota, None),
            (self.table, ['limit', '-']),
        ):
            self.configure_quota('default_limits = tapes:3')
            self.quota('set', 'p1', 'tapes', '5')
            self.configure('')
            answered = answer('unset', 'p1', 'tapes')
            found = answered['limit' if expected is None else -1]
            self.assertEqual(expected, found)
            self.assertEqual([], db.api.quota_get_all(self.context))

    def test_a_limit_that_is_not_set_is_refused(self) -> None:
        for resource in ('gigabytes', 'nonsense'):
            self.assertEqual(
                f'Project p1 has no limit of its own for {resource}.',
                self.refused(1, 'quota', 'unset', 'p1', resource),
            )


class TestClasses(QuotaTestCase):
    def test_show_has_the_limits_of_the_class_over_the_defaults(self) -> None:
        db.api.quota_class_create(self.context, 'default', 'gigabytes', -1)
        db.api.quota_class_create(self.context, 'gold', 'gigabytes', 7)
        unlimited = {'gigabytes': {'limit': -1, 'source': 'class'}}
        self.assertEqual(DEFAULTS | unlimited, self.quota('class-show'))
        seven = {'gigabytes': {'limit': 7, 'source': 'class'}}
        self.assertEqual(DEFAULTS | seven, self.quota('class-show', 'gold'))
        self.assertEqual(
            [
                ['Resource', 'Limit', 'Source'],
                ['resources', '100', 'default_limits'],
                ['gigabytes', 'unlimited', 'class'],
            ],
            self.table('class-show'),
        )

    def test_what_default_limits_leaves_out_is_built_in(self) -> None:
        self.configure_quota('default_limits = gigabytes:3,tapes:-1')
        self.assertEqual(
            [
                ['resources', '100', 'built in'],
                ['gigabytes', '3', 'default_limits'],
                ['tapes', 'unlimited', 'default_limits'],
            ],
            self.table('class-show')[1:],
        )
        self.quota('class-set', 'gold', 'resources', '5')
        answer = self.quota('class-unset', 'gold', 'resources')
        self.assertEqual(100, answer['limit'])
        self.quota('set', 'p1', 'resources', '5')
        answer = self.quota('unset', 'p1', 'resources')
        self.assertEqual(100, answer['limit'])
        self.assertEqual(100, self.quota('show', 'p1')['resources']['limit'])

    def test_show_takes_the_class_that_is_configured(self) -> None:
        db.api.quota_class_create(self.context, 'gold', 'gigabytes', 7)
        self.assertEqual(DEFAULTS, self.quota('class-show'))
        self.configure_quota('default_class = gold')
        self.assertEqual(7, self.quota('class-show')['gigabytes']['limit'])

    def test_show_of_an_unknown_class_is_refused(self) -> None:
        self.assertEqual(
            'Quota class nonsense has no limit for any resource.',
            self.refused(1, 'quota', 'class-show', 'nonsense'),
        )
        self.assertIn(
            'Invalid input', self.refused(2, 'quota', 'class-show', 'x\0')
        )

    def test_set_creates_and_then_changes_the_limit(self) -> None:
        for limit in (5, 7):
            self.assertEqual(
                {
                    'class_name': 'gold',
                    'resource': 'resources',
                    'limit': limit,
                },
                self.quota('class-set', 'gold', 'resources', str(limit)),
            )
            (row,) = db.api.quota_class_get_all(self.context, 'gold')
            self.assertEqual(('resources', limit), (row.resource, row.limit))
        self.assertEqual(
            [
                ['Field', 'Value'],
                ['class_name', 'gold'],
                ['resource', 'resources'],
                ['limit', 'unlimited'],
            ],
            self.table('class-set', 'gold', 'resources', 'unlimited'),
        )

    def test_what_is_set_for_the_class_that_counts_holds_for_projects(
        self,
    ) -> None:
        self.quota('class-set', 'default', 'gigabytes', '7')
        self.assertEqual(7, self.limit('p1', 'gigabytes'))

    def test_set_refuses_what_makes_no_sense(self) -> None:
        self.assertEqual(
            UNKNOWN_RESOURCE,
            self.refused(2, 'quota', 'class-set', 'gold', 'nonsense', '5'),
        )
        self.assertIn(
            "'many' is neither a number nor the word unlimited",
            self.refused(2, 'quota', 'class-set', 'gold', 'resources', 'many'),
        )

    def test_unset_answers_with_the_default(self) -> None:
        self.quota('class-set', 'gold', 'resources', '5')
        self.assertEqual(
            {'class_name': 'gold', 'resource': 'resources', 'limit': 100},
            self.quota('class-unset', 'gold', 'resources'),
        )
        self.assertEqual([], db.api.quota_class_get_all(self.context))
        self.quota('class-set', 'gold', 'resources', '5')
        table = self.table('class-unset', 'gold', 'resources')
        self.assertEqual(['limit', '100'], table[-1])

    def test_unset_of_a_resource_that_has_no_quota_any_more(self) -> None:
        self.configure_quota('default_limits = tapes:3')
        self.quota('class-set', 'gold', 'tapes', '5')
        self.configure('')
        self.assertEqual(
            {'class_name': 'gold', 'resource': 'tapes', 'limit': None},
            self.quota('class-unset', 'gold', 'tapes'),
        )

    def test_unset_of_an_unknown_class_is_refused(self) -> None:
        self.assertEqual(
            'Quota class nonsense has no limit for gigabytes.',
            self.refused(1, 'quota', 'class-unset', 'nonsense', 'gigabytes'),
        )


class TestCheck(QuotaTestCase):
    def checked(self, *projects: str) -> tuple[int, Any]:
        """Return the exit code and the answer of "quota check"."""
        code, out, err = self.run_it('quota', 'check', '--json', *projects)
        self.assertEqual('', err)
        return code, json.loads(out)

    def test_it_is_0_where_nothing_differs(self) -> None:
        self.assertEqual((0, {}), self.checked())
        self.reserve('p1', gigabytes=3)
        self.assertEqual((0, {}), self.checked())
        self.assertEqual((0, {}), self.checked('p1', 'unheard-of'))
        self.assertEqual(
            [['Project', 'Resource', 'Column', 'Recorded', 'Counted']],
            self.table('check'),
        )

    def test_it_is_1_where_something_differs(self) -> None:
        self.reserve('p1', gigabytes=3)
        self.reserve('p2', gigabytes=3)
        self.drift('p2', 8)
        difference = {
            'p2': {'gigabytes': {'reserved': {'recorded': 8, 'counted': 3}}}
        }
        self.assertEqual((1, difference), self.checked())
        self.assertEqual((1, difference), self.checked('p1', 'p2'))
        self.assertEqual((0, {}), self.checked('p1'))
        code, out, err = self.run_it('quota', 'check')
        self.assertEqual((1, ''), (code, err))
        self.assertEqual(
            [['p2', 'gigabytes', 'reserved', '8', '3']], self.rows(out)[1:]
        )

    def test_what_nobody_counts_is_named_on_stderr(self) -> None:
        self.configure_quota('default_limits = tapes:3,disks:3')
        self.quota('set', 'p1', 'tapes', '5')
        for project_id, name in (('p1', 'tapes'), ('p2', 'disks')):
            self.reserve(project_id, **{name: 1})
        said = (
            'These have no counter here, so their usage is not compared: {}\n'
        )
        for options in ((), ('--json',)):
            for arguments, names in (
                (('check',), 'disks, tapes'),
                (('check', 'p1'), 'tapes'),
                (('sync', 'p2', 'p1'), 'disks, tapes'),
                (('sync', '--all'), 'disks, tapes'),
            ):
                code, _, err = self.run_it('quota', *arguments, *options)
                self.assertEqual((0, said.format(names)), (code, err))

    def test_it_changes_nothing(self) -> None:
        self.reserve('p1', gigabytes=3)
        self.drift('p1', 8)
        self.assertEqual(self.checked(), self.checked())

    def test_what_is_in_use_is_compared_with_what_is_counted(self) -> None:
        # The services stand in for resources, their hosts for projects.
        services: Any = models.Service.__table__
        counted = sa.select(sa.func.count()).select_from(services)
        of_project = services.c.host == counters.PROJECT
        self.useFixture(
            fixtures.QuotaCounters(resources=counted.where(of_project))
        )
        self.reserve('p1', resources=2)
        factories.create_service(host='p1')
        self.drift('p1', 1)
        code, out, _ = self.run_it('quota', 'check')
        self.assertEqual(1, code)
        self.assertEqual(
            [
                ['p1', 'resources', 'in_use', '0', '1'],
                ['p1', 'resources', 'reserved', '1', '2'],
            ],
            self.rows(out)[1:],
        )
        self.done('quota', 'sync', 'p1')
        self.assertEqual((0, {}), self.checked())
        usage = self.quota('show', 'p1')['resources']
        self.assertEqual((1, 2), (usage['in_use'], usage['reserved']))

    def test_it_finds_each_of_very_many_projects(self) -> None:
        # More than two pages, and a last one that is full.
        names = [f'p{number:03}' for number in range(300)]
        values = ', '.join(
            f"('{name}', 'gigabytes', 0, {number % 2}, CURRENT_TIMESTAMP)"
            for number, name in enumerate(names)
        )
        self.execute(
            'INSERT INTO quota_usages '
            f'(project_id, resource, in_use, reserved, created_at) VALUES '
            f'{values}'
        )
        code, found = self.checked()
        self.assertEqual((1, names[1::2]), (code, list(found)))
        self.assertEqual(names[1::2], list(self.quota('sync', '--all')))
        self.assertEqual((0, {}), self.checked())

    def test_a_project_without_a_name_is_refused(self) -> None:
        for command in ('check', 'sync'):
            message = self.refused(2, 'quota', command, 'p1', '')
            self.assertIn('Invalid input for project_id', message)


class TestSync(QuotaTestCase):
    def setUp(self) -> None:
        super().setUp()
        for project_id in ('p1', 'p2', 'p3'):
            self.reserve(project_id, gigabytes=3)

    def reserved(self) -> list[int]:
        """Return what is recorded as reserved, of each project."""
        return [
            self.quota('show', name)['gigabytes']['reserved']
            for name in ('p1', 'p2', 'p3')
        ]

    def test_it_corrects_the_projects_that_are_named(self) -> None:
        for project_id in ('p1', 'p2', 'p3'):
            self.drift(project_id, 8)
        difference = {'gigabytes': {'reserved': {'recorded': 8, 'counted': 3}}}
        self.assertEqual(
            {'p1': difference, 'p3': difference},
            self.quota('sync', 'p1', 'p3'),
        )
        self.assertEqual([3, 8, 3], self.reserved())
        self.assertEqual({}, self.quota('sync', 'p1', 'p3'))

    def test_it_corrects_all_projects(self) -> None:
        self.drift('p1', 8)
        self.drift('p3', 0)
        self.assertEqual(
            [
                ['Project', 'Resource', 'Column', 'Recorded', 'Counted'],
                ['p1', 'gigabytes', 'reserved', '8', '3'],
                ['p3', 'gigabytes', 'reserved', '0', '3'],
            ],
            self.table('sync', '--all'),
        )
        self.assertEqual([3, 3, 3], self.reserved())
        self.assertEqual(1, len(self.table('sync', '--all')))

    def test_it_needs_to_be_told_which(self) -> None:
        self.drift('p1', 8)
        for arguments in ((), ('p1', '--all')):
            self.assertEqual(
                'Invalid input for projects: name projects or pass --all, not '
                'both.',
                self.refused(2, 'quota', 'sync', *arguments),
            )
        self.assertEqual([8, 3, 3], self.reserved())

    def test_what_it_corrected_before_it_failed_is_told(self) -> None:
        for project_id in ('p1', 'p2', 'p3'):
            self.drift(project_id, 8)
        self.execute(
            'CREATE TRIGGER no BEFORE UPDATE ON quota_usages '
            "WHEN NEW.project_id = 'p2' "
            "BEGIN SELECT RAISE(ABORT, 'not this one'); END"
        )
        code, out, err = self.run_it('quota', 'sync', '--all', '--json')
        self.assertEqual((2, ['p1']), (code, list(json.loads(out))))
        self.assertIn('not this one', err)
        self.assertEqual(1, err.count('\n'))
        self.assertEqual([3, 8, 8], self.reserved())
        self.assertIn('not this one', self.refused(2, 'quota', 'sync', 'p2'))


class TestExpire(QuotaTestCase):
    def test_it_gives_back_what_is_overdue_and_says_how_many(self) -> None:
        self.reserve('p1', gigabytes=3, resources=1)
        self.reserve('p2', gigabytes=3)
        self.assertEqual({'expired': 0}, self.quota('expire'))
        self.execute(
            "UPDATE reservations SET expire_at = '2000-01-01 00:00:00' "
            "WHERE project_id = 'p1'"
        )
        self.assertEqual({'expired': 2}, self.quota('expire'))
        for project_id, reserved in (('p1', 0), ('p2', 3)):
            usages = self.quota('show', project_id)
            self.assertEqual(reserved, usages['gigabytes']['reserved'])
        self.assertEqual(
            [['Field', 'Value'], ['expired', '0']], self.table('expire')
        )


class TestUsage(QuotaTestCase):
    def test_what_is_missing_or_too_much_is_told(self) -> None:
        for arguments in (
            (),
            ('nonsense',),
            ('show',),
            ('set', 'p1', 'gigabytes'),
            ('unset', 'p1'),
            ('class-show', 'gold', 'x'),
            ('class-set', 'gold', 'gigabytes'),
            ('class-unset', 'gold'),
            ('check', '--all'),
            ('expire', 'p1'),
        ):
            code, out, err = self.run_it('quota', *arguments)
            self.assertEqual((2, ''), (code, out), arguments)
            self.assertIn('usage: ', err)

    def test_help_names_the_exit_codes_everywhere(self) -> None:
        for arguments in (
            (),
            *(
                (name,)
                for name in (
                    *('show', 'set', 'unset', 'check', 'sync', 'expire'),
                    *('class-show', 'class-set', 'class-unset'),
                )
            ),
        ):
            code, out, err = self.run_it('quota', *arguments, '--help')
            self.assertEqual((0, ''), (code, err))
            self.assertIn(test_manage.CODES, ' '.join(out.split()), arguments)

    def test_a_database_without_tables_is_told_in_one_line(self) -> None:
        self.execute('DROP TABLE quota_usages')
        for arguments in (
            ('show', 'p1'),
            ('check',),
            ('check', 'p1'),
            ('sync', 'p1'),
            ('sync', '--all'),
        ):
            message = self.refused(2, 'quota', *arguments)
            self.assertIn('no such table: quota_usages', message)


class TestTerminal(QuotaTestCase):
    """What only a terminal shows: the progress, on stderr alone."""

    def process(self, *arguments: str) -> tuple[int, Any, str]:
        """Return the exit code, the answer as JSON, and stderr."""
        leader, follower = pty.openpty()
        self.addCleanup(os.close, leader)
        with subprocess.Popen(
            [
                *(sys.executable, '-m', 'myservice.cmd.manage'),
                *('--config-file', str(self.config)),
                *('quota', *arguments, '--json'),
            ],
            stdout=subprocess.PIPE,
            stderr=follower,
            env=os.environ | {'TERM': 'xterm'},
        ) as process:
            os.close(follower)
            out, _ = process.communicate()
        return process.returncode, json.loads(out), self.read(leader)

    def read(self, leader: int) -> str:
        """Return what was written to a terminal whose programs are gone."""
        parts = []
        while True:
            try:
                parts.append(os.read(leader, 65536))
            except OSError:
                # Linux says so where others say that the file has ended.
                return b''.join(parts).decode()

    def test_several_projects_show_their_progress(self) -> None:
        for project_id in ('p1', 'p2', 'p3'):
            self.reserve(project_id, gigabytes=3)
        self.drift('p2', 8)
        code, answer, err = self.process('check')
        self.assertEqual((1, ['p2']), (code, list(answer)))
        self.assertIn('3/?', err)
        code, answer, err = self.process('sync', 'p1', 'p2')
        self.assertEqual((0, ['p2']), (code, list(answer)))
        self.assertIn('2/2', err)

    def test_one_project_shows_none(self) -> None:
        self.reserve('p1', gigabytes=3)
        for arguments in (('check',), ('check', 'p1'), ('sync', 'p1')):
            self.assertEqual((0, {}, ''), self.process(*arguments))
