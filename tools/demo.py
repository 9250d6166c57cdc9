"""Shows the main job on SQLite, for a person to watch: ``tox -e demo``.

Three agents run as processes. One is killed and seen down, one is disabled,
the killed one is destroyed, the others are stopped. Then three agents share
the work on 200 resources: one is killed in the middle of it, another sleeps
until its claims are taken over. Each step checks what it prints; if a check
fails, the demo ends with exit code 1.
"""

import contextlib
import json
import os
import pathlib
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from myservice import conf
from myservice import context
from myservice import db
from myservice import exception
from myservice.cmd import common

RESOURCES = 200
WORKERS = ('w1', 'w2', 'w3')

CONFIG = """\
[database]
connection = sqlite:///{directory}/demo.sqlite

[service]
report_interval = 0.5
down_time = 2

[agent]
worker_seconds = 0.1
poll_interval = 0.2
concurrency = 2
take_over_interval = 0.5
"""

# The database itself counts, independently of the agents: each write that
# makes a resource available while a service holds it is an effect.
COUNTER = """\
CREATE TABLE effects (resource_id, service_id);
CREATE TRIGGER count_effects AFTER UPDATE ON resources
WHEN NEW.status = 'available' AND NEW.service_id IS NOT NULL
BEGIN
    INSERT INTO effects VALUES (NEW.id, NEW.service_id);
END;
"""
EFFECTS = """\
SELECT host, resource_id
FROM effects JOIN services ON services.id = service_id
"""


class Demo:
    """The steps with services, in order, and what all steps need.

    :param directory: for the configuration and the database
    :param processes: ends the agents at the end of the demo
    """

    def __init__(
        self, directory: pathlib.Path, processes: contextlib.ExitStack
    ) -> None:
        self._config = directory / 'demo.conf'
        self._config.write_text(CONFIG.format(directory=directory))
        self._processes = processes

    def run(self) -> None:
        """Run all steps."""
        self.step('Create the tables')
        self.show('db', 'sync')

        self.step('Start three agents, as real processes')
        agents = {host: self.start_agent(host) for host in ('a', 'b', 'c')}
        self.wait_for('three agents to be up', lambda: self.up() == 'abc')
        self.show('service', 'list')

        self.step('Kill agent c with SIGKILL: it is down within down_time')
        agents['c'].kill()
        killed = time.monotonic()
        self.wait_for('agent c to be down', lambda: self.up() == 'ab')
        seconds = time.monotonic() - killed
        print(f'Seen down after {seconds:.1f} seconds.')
        self.check('it took not much more than down_time', seconds < 5)
        self.show('service', 'list')

        self.step('Disable agent b, with a reason')
        reason = 'its disk is replaced'
        self.show('service', 'disable', self.id_of('b'), '--reason', reason)
        self.check(
            'b is disabled for that reason',
            self.service('b')['disabled_reason'] == reason,
        )
        self.check('b is still up', self.service('b')['is_up'])

        self.step('Destroy the killed one')
        self.show('service', 'remove', self.id_of('c'))
        self.show('service', 'list')
        self.check('a and b are left', self.hosts() == 'ab')

        self.step('Stop the others with SIGTERM')
        for host in 'ab':
            agents[host].send_signal(signal.SIGTERM)
            code = agents[host].wait(20)
            self.check(f'agent {host} left with exit code 0', code == 0)
        self.wait_for('no agent to be up', lambda: self.up() == '')

    def step(self, title: str) -> None:
        """Print the title of the next step."""
        print(f'\n== {title} ==', flush=True)

    def check(self, claim: str, holds: bool) -> None:
        """Print a check, and end the demo if it fails."""
        print(f'  {"yes" if holds else "NO"}: {claim}', flush=True)
        if not holds:
            raise SystemExit(1)

    def wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until a check succeeds, and end the demo if it never does."""
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up:
            if holds():
                return
            time.sleep(0.25)
        self.check(what, False)

    def start_agent(
        self, host: str, *arguments: str
    ) -> subprocess.Popen[bytes]:
        """Start an agent, which is killed at the latest when the demo ends."""
        options = ('--host', host, '--binary', 'demo', *arguments)
        agent = subprocess.Popen([*self.program('agent'), *options])
        self._processes.callback(agent.wait)
        self._processes.callback(agent.kill)
        return agent

    def program(self, name: str) -> list[str]:
        """Return the command line of one of our programs."""
        module = f'myservice.cmd.{name}'
        config = str(self._config)
        return [sys.executable, '-m', module, '--config-file', config]

    def show(self, *arguments: str) -> None:
        """Run myservice-manage for the person who watches."""
        print('$ myservice-manage', *arguments, flush=True)
        subprocess.run([*self.program('manage'), *arguments], check=True)

    def services(self) -> list[dict[str, Any]]:
        """Return the answer of ``service list --json``."""
        answer = subprocess.run(
            [*self.program('manage'), 'service', 'list', '--json'],
            check=True,
            stdout=subprocess.PIPE,
        )
        services: list[dict[str, Any]] = json.loads(answer.stdout)
        return services

    def service(self, host: str) -> dict[str, Any]:
        """Return the service on a host."""
        return next(s for s in self.services() if s['host'] == host)

    def id_of(self, host: str) -> str:
        """Return the id of the service on a host."""
        return str(self.service(host)['id'])

    def hosts(self) -> str:
        """Return the hosts that have a service."""
        return ''.join(s['host'] for s in self.services())

    def up(self) -> str:
        """Return the hosts whose service is up."""
        return ''.join(s['host'] for s in self.services() if s['is_up'])


class Work:
    """The steps in which agents work, in order.

    :param demo: prints titles, checks, and starts agents
    :param directory: the directory of the demo
    """

    def __init__(self, demo: Demo, directory: pathlib.Path) -> None:
        self._demo = demo
        self._directory = directory
        self._agents: dict[str, subprocess.Popen[bytes]] = {}
        self._context = context.get_admin_context()
        self._said = 0

    def run(self) -> None:
        """Run all steps."""
        step = self._demo.step
        step(f'Project p requests {RESOURCES} resources, its quota')
        self.request()

        step('Start three agents, which share the work')
        self.start()
        self.wait_for_effects('each agent has done some', 1)

        step('Kill agent w3 with SIGKILL, in the middle of its work')
        left = self.pause('w3')
        self._agents['w3'].kill()
        self._agents['w3'].wait()
        self.show('It leaves these claims behind', left)
        done_by_w3 = self.effects()['w3']
        self.wait_for_effects('half of the work is done', RESOURCES // 2)

        step('Let agent w2 sleep (SIGSTOP) until it is believed dead')
        believed = self.pause('w2')
        self.show(
            'When it wakes, it will believe that it holds these', believed
        )

        step('Agent w1 takes over their claims, and does the rest')
        self.wait_for_effects('all the work is done', RESOURCES)
        done = self.effects()
        self._demo.check(
            'others have done the resources that w3 held',
            left <= done['w1'] | done['w2'],
        )
        self._demo.check(
            'w1 has done the resources that w2 held', believed <= done['w1']
        )
        self._demo.check('w3 has done nothing since', done['w3'] == done_by_w3)

        step('Wake agent w2 (SIGCONT): its results come too late')
        self.wake(believed)

        step('Check the work')
        self.check()
        self.end()

    def request(self) -> None:
        """Create as many resources as the quota allows, and one more."""
        manage = self._demo.show
        manage('quota', 'set', 'p', 'resources', str(RESOURCES))
        manage('quota', 'show', 'p')
        caller = context.RequestContext(project_id='p', overwrite=False)
        for _ in range(RESOURCES):
            db.api.resource_create(caller, {'size': 1})
        manage('quota', 'show', 'p')
        try:
            db.api.resource_create(caller, {'size': 1})
        except exception.OverQuota as error:
            print(error)
        count = len(db.api.resource_get_all(caller))
        self._demo.check(f'it has {count}, and no more', count == RESOURCES)

    def start(self) -> None:
        """Start the agents; their logs go to files."""
        with contextlib.closing(self.connect()) as connection:
            connection.executescript(COUNTER)
        for host in WORKERS:
            log = str(self._directory / f'{host}.log')
            self._agents[host] = self._demo.start_agent(
                host, '--binary', 'worker', '--log-file', log
            )

    def connect(self) -> sqlite3.Connection:
        """Return a separate connection, which waits for at most one second."""
        path = self._directory / 'demo.sqlite'
        return sqlite3.connect(path, timeout=1, isolation_level=None)

    def effects(self) -> dict[str, set[str]]:
        """Return the resources that each agent has made available."""
        found: dict[str, set[str]] = {host: set() for host in WORKERS}
        with contextlib.closing(self.connect()) as connection:
            for host, resource_id in connection.execute(EFFECTS):
                found[host].add(resource_id)
        return found

    def wait_for_effects(self, what: str, total: int) -> None:
        """Wait until each agent has done some, and all together enough."""

        def done() -> bool:
            counts = [len(found) for found in self.effects().values()]
            enough = all(counts) and sum(counts) >= total
            if enough or sum(counts) >= self._said + RESOURCES // 10:
                self._said = sum(counts)
                one, two, three = counts
                print(f'  {self._said:3} done: {one} + {two} + {three}')
            return enough

        self._demo.wait_for(what, done)
        self._demo.check(what, True)

    def claimed(self, host: str) -> dict[str, str]:
        """Return the resources that an agent holds, each with its status."""
        services = db.api.service_get_all(self._context, {'host': host})
        filters = {'service_id': [service.id for service in services]}
        rows = db.api.resource_get_all(self._context, filters)
        return {row.id: row.status for row in rows}

    def pause(self, host: str) -> set[str]:
        """Pause an agent while it works, and return the resources that it
        holds.

        It is not paused while it writes: SQLite has one writer, and the others
        would wait for it.
        """
        agent = self._agents[host]
        for _ in range(100):
            agent.send_signal(signal.SIGSTOP)
            os.waitpid(agent.pid, os.WUNTRACED)
            claimed = self.claimed(host)
            at_work = set(claimed.values()) == {'requested'}
            if at_work and not self.somebody_writes():
                return set(claimed)
            agent.send_signal(signal.SIGCONT)
            time.sleep(0.03)
        self._demo.check(f'agent {host} could be met at work', False)
        return set()

    def somebody_writes(self) -> bool:
        """Return whether a write is running, and goes on for a second."""
        with contextlib.closing(self.connect()) as connection:
            try:
                connection.execute('BEGIN IMMEDIATE')
            except sqlite3.OperationalError:
                return True
            connection.execute('ROLLBACK')
            return False

    def show(self, title: str, resource_ids: set[str]) -> None:
        """List resources."""
        print(f'{title}:')
        for resource_id in sorted(resource_ids):
            print(f'  {resource_id}', flush=True)

    def wake(self, believed: set[str]) -> None:
        """Wake w2, whose claims are lost, and list its refused writes."""
        self._agents['w2'].send_signal(signal.SIGCONT)
        self._demo.wait_for(
            'its writes to be refused',
            lambda: len(self.refusals('w2')) >= len(believed),
        )
        print('Refused writes in the logs of the agents:')
        refusals = {host: self.refusals(host) for host in WORKERS}
        for host, lines in refusals.items():
            for line in lines:
                print(f'  {host}: {line}')
        named = {i for i in believed for x in refusals['w2'] if i in x}
        self._demo.check(
            'w2 was refused for each claim that it lost', named == believed
        )
        self._demo.check(
            'no other write was refused',
            sum(map(len, refusals.values())) == len(believed),
        )

    def refusals(self, host: str) -> list[str]:
        """Return the lines about refused writes in an agent's log."""
        text = (self._directory / f'{host}.log').read_text()
        lines = [li for li in text.splitlines() if 'was refused' in li]
        return [line.partition('[-] ')[2] for line in lines]

    def check(self) -> None:
        """Check that each resource was done exactly once."""
        check = self._demo.check
        filters = {'status': 'available', 'is_claimed': False}
        rows = db.api.resource_get_all(self._context, filters)
        check(f'{len(rows)} are available, and free', len(rows) == RESOURCES)
        with contextlib.closing(self.connect()) as connection:
            effects = list(connection.execute(EFFECTS))
        check(
            f'the database has counted {len(effects)} effects, one for each',
            sorted(i for _, i in effects) == sorted(row.id for row in rows),
        )
        self._demo.show('quota', 'show', 'p')
        self._demo.show('quota', 'check')

    def end(self) -> None:
        """Stop the remaining agents."""
        self._demo.step('Stop the others with SIGTERM')
        for host in ('w1', 'w2'):
            self._agents[host].send_signal(signal.SIGTERM)
            code = self._agents[host].wait(20)
            self._demo.check(f'agent {host} left with exit code 0', code == 0)


def main() -> None:
    """Run the demo in a temporary directory."""
    # So that SIGTERM ends the agents, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with (
        tempfile.TemporaryDirectory(prefix='myservice-demo-') as name,
        contextlib.ExitStack() as processes,
    ):
        directory = pathlib.Path(name)
        demo = Demo(directory, processes)
        demo.run()
        conf.CONF(
            ['--config-file', str(directory / 'demo.conf')],
            project='myservice',
        )
        processes.callback(db.api.dispose)
        Work(demo, directory).run()
        print('\nAll checks succeeded.')


if __name__ == '__main__':
    sys.exit(common.run('demo', main))
