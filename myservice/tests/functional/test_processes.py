"""Real processes: agents, one SQLite file for many, servers that restart."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from typing import Any

from myservice import conf
from myservice import context
from myservice import db
from myservice import exception
from myservice import servers
from myservice.tests import factories
from myservice.tests.functional import base


def beat_and_read(connection: str, service_id: str, count: int) -> None:
    """Beat and read in a process of its own; any error ends it."""
    conf.CONF([], project='myservice', default_config_files=[])
    conf.CONF.set_override('connection', connection, 'database')
    ctx = context.get_admin_context()
    for number in range(count):
        db.api.service_heartbeat(ctx, service_id)
        db.api.service_update(ctx, service_id, {'version': number})
        if db.api.service_get(ctx, service_id).version != number:
            raise SystemExit('a write was lost')


class TestOneFile(base.ServerTestCase):
    server_class = None

    def test_eight_processes_beat_and_read_two_hundred_times(self) -> None:
        services = [factories.create_service() for _ in range(8)]
        spawn = multiprocessing.get_context('spawn')
        processes = [
            spawn.Process(
                target=beat_and_read,
                args=(self.database.connection, service.id, 200),
            )
            for service in services
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(300)
        self.assertEqual([0] * 8, [p.exitcode for p in processes])
        rows = db.api.service_get_all(self.context)
        self.assertEqual([199] * 8, [row.version for row in rows])
        self.assertEqual([True] * 8, [row.is_up for row in rows])


class AgentTestCase(base.ServerTestCase):
    def start_agent(
        self, config: str, host: str, *, prefix: Any = (), **kwargs: Any
    ) -> subprocess.Popen[str]:
        agent = subprocess.Popen(
            [
                *prefix,
                *self.program(
                    'agent', config, '--host', host, '--binary', 'agent'
                ),
            ],
            stderr=subprocess.PIPE,
            text=True,
            **kwargs,
        )
        self.addCleanup(agent.communicate)
        self.addCleanup(agent.kill)
        return agent

    def await_service(self, host: str, *, is_up: bool) -> Any:
        found = None
        for _ in range(200):
            try:
                found = db.api.service_get_by_host_and_binary(
                    self.context, host, 'agent'
                )
                if found.is_up == is_up:
                    return found
            except exception.ServiceNotFound:
                pass
            time.sleep(0.1)
        return self.fail(f'is_up never became {is_up}: {found}')

    def check_survival(self, *ends: signal.Signals) -> None:
        """Let the server end in some ways, and come back, under an agent."""
        config = self.write_config(report_interval=0.3, down_time=1.5)
        agent = self.start_agent(config, 'h')
        self.await_service('h', is_up=True)
        for how in ends:
            self.server.stop(how)
            time.sleep(2)
            self.server.start()
            self.assertIsNone(agent.poll())
            time.sleep(1)
            self.await_service('h', is_up=True)
        agent.terminate()
        self.assertEqual(0, agent.wait(10))


class TestAgentMariaDB(AgentTestCase):
    server_class = servers.MariaDB

    def test_it_survives_a_server_that_is_killed_and_comes_back(self) -> None:
        self.check_survival(signal.SIGKILL, signal.SIGTERM)

    def test_its_own_clock_does_not_matter(self) -> None:
        faketime = shutil.which('faketime')
        if faketime is None:
            self.fail('apt-get install $(bindep --brief test)')
        config = self.write_config(report_interval=0.3, down_time=1.5)
        for host, shift in (
            ('fast', '+1h'),
            ('slow', '-1h'),
            ('right', '+0s'),
        ):
            # Not through the program faketime: it would have to be killed
            # beside its child.
            environment = os.environ | {
                'LD_PRELOAD': _library(faketime),
                'FAKETIME': shift,
                'FAKETIME_DONT_FAKE_MONOTONIC': '1',
            }
            self.start_agent(config, host, env=environment)
        for host in ('fast', 'slow', 'right'):
            self.await_service(host, is_up=True)
        time.sleep(2)
        rows = db.api.service_get_all(self.context)
        self.assertEqual([True] * 3, [row.is_up for row in rows])
        seen = sorted(row.last_seen_at or row.created_at for row in rows)
        self.assertTrue((seen[-1] - seen[0]).total_seconds() < 2, seen)

    def test_a_stale_pool_costs_the_caller_nothing_visible(self) -> None:
        self.database.configure(max_pool_size=20)
        service = factories.create_service()
        self.in_threads(
            20, lambda _: db.api.service_get(self.context, service.id)
        )
        for how in (signal.SIGKILL, signal.SIGTERM):
            self.server.stop(how)
            self.server.start()
            results = self.in_threads(
                20, lambda _: self.use(context.get_admin_context(), service.id)
            )
            self.assertEqual([None] * 20, results)
        self.assertEqual(
            1, len(db.api.service_get_all(self.context, {'is_up': True}))
        )

    def use(self, ctx: context.RequestContext, service_id: str) -> None:
        db.api.service_heartbeat(ctx, service_id)
        db.api.service_get(ctx, service_id)
        db.api.run_in_transaction(ctx, db.api.service_heartbeat, service_id)


class TestIdleConnections(AgentTestCase):
    server_class = servers.MariaDB
    settings = {'wait_timeout': 2}

    def test_wait_timeout_passes_and_nobody_sees_gone_away(self) -> None:
        self.database.configure(max_pool_size=20)
        service = factories.create_service()
        values = {'topic': 'any'}

        def work(calls: int) -> None:
            ctx = context.get_admin_context()
            for number in range(calls):
                if number % 3 == 0:
                    db.api.service_heartbeat(ctx, service.id)
                elif number % 3 == 1:
                    db.api.service_get(ctx, service.id)
                else:
                    with db.api.transaction(ctx):
                        db.api.service_update(ctx, service.id, values)

        before = db.api.statistics().retries
        # A thousand calls by twenty threads, each after all are idle.
        for calls in (3, 25, 25):
            results = self.in_threads(20, lambda _, calls=calls: work(calls))
            self.assertEqual([None] * 20, results)
            time.sleep(3)
        self.assertEqual(before, db.api.statistics().retries)


class TestAgentPostgreSQL(AgentTestCase):
    server_class = servers.PostgreSQL

    def test_it_survives_a_server_that_is_killed_and_comes_back(self) -> None:
        self.check_survival(signal.SIGKILL)


def _library(faketime: str) -> str:
    found = subprocess.run(
        [faketime, '-f', '+0s', 'sh', '-c', 'echo $LD_PRELOAD'],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return found.stdout.strip()
