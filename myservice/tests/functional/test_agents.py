"""Agents as processes share the work; one is killed in the middle of it.

A trigger of the database itself counts the effects, whatever agents say: each
write that makes a resource available while somebody holds it is one.
"""

import subprocess
import time
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from testtools import content

from myservice import db
from myservice import servers
from myservice.tests.functional import base

RESOURCES = 60

_AGENT = """\
[agent]
worker_seconds = {worker_seconds}
poll_interval = 0.1
concurrency = 2
take_over_interval = 0.5
"""

_TABLE = """\
CREATE TABLE effects (
    resource_id VARCHAR(36), service_id VARCHAR(36), generation BIGINT
)"""
_INSERT = """\
INSERT INTO effects SELECT NEW.id, NEW.service_id, NEW.claim_generation
WHERE NEW.status = 'available' AND NEW.service_id IS NOT NULL"""
_TRIGGER = (
    'CREATE TRIGGER count_effects AFTER UPDATE ON resources FOR EACH ROW'
)

TRIGGERS = {
    'sqlite': [f'{_TRIGGER} BEGIN {_INSERT}; END'],
    'mysql': [f'{_TRIGGER} {_INSERT.replace("WHERE", "FROM DUAL WHERE")}'],
    'postgresql': [
        'CREATE OR REPLACE FUNCTION count_effects() RETURNS trigger AS $$ '
        f'BEGIN {_INSERT}; RETURN NEW; END $$ LANGUAGE plpgsql',
        f'{_TRIGGER} EXECUTE FUNCTION count_effects()',
    ],
}


class AgentsTestCase(base.ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        with self.database.engine().begin() as connection:
            connection.exec_driver_sql('DROP TABLE IF EXISTS effects')
            for statement in (_TABLE, *TRIGGERS[self.backend]):
                connection.exec_driver_sql(statement)

    def effects(self) -> list[Any]:
        """Return who has made which resource available."""
        with self.database.engine().connect() as connection:
            return list(connection.execute(sa.text('SELECT * FROM effects')))

    def effects_of(self, host: str) -> list[Any]:
        """Return what the agent on a host has made available."""
        service = db.api.service_get_by_host_and_binary(
            self.context, host, 'agent'
        )
        return [e for e in self.effects() if e.service_id == service.id]

    def held_by(self, host: str) -> list[Any]:
        """Return what the agent on a host works on."""
        service = db.api.service_get_by_host_and_binary(
            self.context, host, 'agent'
        )
        return self.rows(service_id=service.id, status='requested')

    def rows(self, **filters: Any) -> list[Any]:
        """Return resources."""
        return db.api.resource_get_all(self.context, filters)

    def request_resources(self) -> None:
        """Create the resources that agents work on."""
        for _ in range(RESOURCES):
            db.api.resource_create(self.context, {'project_id': 'p'})

    def start_agent(
        self, host: str, worker_seconds: float
    ) -> subprocess.Popen[bytes]:
        """Start an agent, and wait until it lives; its log is a detail."""
        config = self.write_config(report_interval=0.3, down_time=1.5)
        with open(config, 'a') as file:
            file.write(_AGENT.format(worker_seconds=worker_seconds))
        arguments = ('--host', host, '--binary', 'agent')
        log = self.create_tempfiles([(host, '')], '.log')[0]
        with open(log, 'w') as file:
            agent = subprocess.Popen(
                self.program('agent', config, *arguments),
                stdout=file,
                stderr=file,
            )
        self.addCleanup(self.note_log, host, log)
        self.addCleanup(agent.wait)
        self.addCleanup(agent.kill)
        self.wait_for(f'{host} to live', lambda: self.lives(host))
        return agent

    def note_log(self, host: str, path: str) -> None:
        """Keep what an agent has logged, in case the test fails."""
        with open(path) as file:
            log = content.text_content(file.read())
        self.addDetail(f'agent {host}', log)

    def lives(self, host: str) -> bool:
        """Return whether the agent on a host has registered."""
        services = db.api.service_get_all(self.context, {'host': host})
        return bool(services)

    def wait_for(self, what: str, holds: Callable[[], Any]) -> None:
        """Wait until something holds; it fails after a minute."""
        give_up = time.monotonic() + 60
        while not holds():
            self.assertTrue(time.monotonic() < give_up, what)
            time.sleep(0.05)

    def check_a_kill(self) -> None:
        """Kill one of three agents, which is slow, while it works."""
        slow = self.start_agent('slow', 1)
        others = [self.start_agent(host, 0.1) for host in ('a', 'b')]
        # Not before: two could have done all of it before the third begins.
        self.request_resources()
        self.wait_for(
            'all of them to have done something',
            lambda: all(map(self.effects_of, ('slow', 'a', 'b'))),
        )
        self.wait_for('it to work', lambda: self.held_by('slow'))
        slow.kill()
        slow.wait()
        self.assertTrue(self.held_by('slow'))
        done = len(self.effects_of('slow'))
        self.check_that_all_is_done_once()
        self.assertEqual(done, len(self.effects_of('slow')))
        for agent in others:
            agent.terminate()
            self.assertEqual(0, agent.wait(20))

    def check_that_all_is_done_once(self) -> None:
        """Check it by the trigger, and by the generations."""
        done = {'status': 'available', 'is_claimed': False}
        self.wait_for(
            'all of it to be done',
            lambda: len(self.rows(**done)) == RESOURCES,
        )
        rows = self.rows()
        effects = self.effects()
        self.assertEqual(RESOURCES, len(effects))
        # A claim, the write under it, and its release are the last three.
        self.assertEqual(
            {row.id: row.generation - 2 for row in rows},
            {effect.resource_id: effect.generation for effect in effects},
        )
        # Claims and their ends come in pairs: the one write makes it odd.
        self.assertEqual({1}, {row.generation % 2 for row in rows})

    def check_a_stop(self) -> None:
        """Stop an agent that works, as it is meant to be stopped."""
        self.request_resources()
        agent = self.start_agent('a', 60)
        self.wait_for('two claims', lambda: len(self.held_by('a')) == 2)
        started = time.monotonic()
        agent.terminate()
        self.assertEqual(0, agent.wait(20))
        self.assertTrue(time.monotonic() - started < 5)
        self.assertEqual([], self.rows(is_claimed=True))
        self.assertEqual(RESOURCES, len(self.rows(status='requested')))
        self.assertEqual([], self.effects())


class TestSQLite(AgentsTestCase):
    server_class = None

    def test_one_of_three_is_killed_and_all_is_done_once(self) -> None:
        self.check_a_kill()

    def test_on_sigterm_claims_are_given_back(self) -> None:
        self.check_a_stop()


class TestMariaDB(AgentsTestCase):
    server_class = servers.MariaDB

    def test_one_of_three_is_killed_and_all_is_done_once(self) -> None:
        self.check_a_kill()

    def test_on_sigterm_claims_are_given_back(self) -> None:
        self.check_a_stop()


class TestPostgreSQL(AgentsTestCase):
    server_class = servers.PostgreSQL

    def test_one_of_three_is_killed_and_all_is_done_once(self) -> None:
        self.check_a_kill()

    def test_on_sigterm_claims_are_given_back(self) -> None:
        self.check_a_stop()
