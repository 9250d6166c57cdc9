"""Agents as processes with one name: one of them works, and the other ends."""

import pathlib
import signal
import subprocess
import time
from typing import Any

from testtools import content

from myservice import db
from myservice import exception
from myservice import servers
from myservice.tests.functional import test_agents

NAME = ('--host', 'h', '--binary', 'agent')

_CONFIG = """\
[agent]
worker_seconds = {worker_seconds}
poll_interval = 0.1
take_over_interval = 0.5
"""


class Agent:
    """An agent that runs as a process.

    :param command: its command line
    :param log: the path of the file that gets what it says
    """

    def __init__(self, command: list[str], log: str) -> None:
        self._log = pathlib.Path(log)
        with open(log, 'w') as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)

    def said(self) -> str:
        """Return what it has said so far."""
        return self._log.read_text()

    def last_line(self) -> str:
        """Return the last line of it."""
        return self.said().splitlines()[-1]


class RegistrationsTestCase(test_agents.AgentsTestCase):
    def start(
        self,
        *arguments: str,
        worker_seconds: float = 60,
        interval: float = 0.5,
    ) -> Agent:
        """Start an agent; all of them have the same name."""
        config = self.write_config(
            report_interval=interval, down_time=6 * interval
        )
        with open(config, 'a') as file:
            file.write(_CONFIG.format(worker_seconds=worker_seconds))
        command = self.program('agent', config, *NAME, *arguments)
        agent = Agent(command, self.create_tempfiles([('agent', '')])[0])
        self.addCleanup(
            lambda: self.addDetail(
                f'agent {agent.process.pid}',
                content.text_content(agent.said()),
            )
        )
        self.addCleanup(agent.process.wait)
        self.addCleanup(agent.process.kill)
        return agent

    def service(self) -> Any:
        """Return the row of the service; None when there is none yet."""
        try:
            return db.api.service_get_by_host_and_binary(
                self.context, 'h', 'agent'
            )
        except exception.ServiceNotFound:
            return None

    def wait_for_registration(self, number: int, beats: bool = True) -> None:
        """Wait until an agent has registered, and, if it beats, has beaten."""

        def lives() -> bool:
            row = self.service()
            return row is not None and (row.registration, row.is_up) == (
                number,
                True,
            )

        self.wait_for(f'registration {number}', lives)
        if not beats:
            return
        seen = self.service().last_seen_at
        self.wait_for('a beat', lambda: self.service().last_seen_at > seen)

    def request(self) -> str:
        """Create a resource that is to be worked on, and return its id."""
        values = {'project_id': 'p'}
        return db.api.resource_create(self.context, values).id

    def check_refusal(self, agent: Agent) -> None:
        """Wait until an agent has refused to start, and check its words."""
        self.assertEqual(1, agent.process.wait(60))
        line = agent.last_line()
        service = self.service()
        for part in (
            'myservice-agent: Another process runs as agent on host h:',
            f'service {service.id}, registration {service.registration}, '
            'last seen at 2',
            '--host',
            '--binary',
            '--replace',
        ):
            self.assertIn(part, line)

    def check_second(self) -> None:
        """Start a second one while the first works."""
        self.request()
        first = self.start()
        self.wait_for_registration(1)
        self.wait_for('it to work', lambda: self.held_by('h'))
        (before,) = self.held_by('h')
        self.check_refusal(self.start())
        self.assertIsNone(first.process.poll())
        self.wait_for_registration(1)
        self.assertEqual([before], self.held_by('h'))
        first.process.terminate()
        self.assertEqual(0, first.process.wait(60))

    def check_race(self) -> None:
        """Start some at once, where nobody lived and where one was killed."""
        for number in (1, 2):
            agents = [self.start() for _ in range(3)]
            self.wait_for_registration(number)
            self.wait_for(
                'all but one to end',
                lambda agents=agents: self.living(agents) <= 1,
            )
            self.wait_for_registration(number)
            (winner,) = [a for a in agents if a.process.poll() is None]
            for agent in agents:
                if agent is not winner:
                    self.check_refusal(agent)
            self.assertEqual(number, self.service().registration)
            winner.process.kill()
            winner.process.wait()

    def living(self, agents: list[Agent]) -> int:
        """Return how many agents run."""
        return sum(agent.process.poll() is None for agent in agents)

    def check_kill(self) -> None:
        """Kill one, and start it again at once."""
        self.request()
        first = self.start(interval=4)
        self.wait_for_registration(1)
        self.wait_for('it to work', lambda: self.held_by('h'))
        first.process.kill()
        first.process.wait()
        # It waits for what is left of seven seconds.
        self.start(worker_seconds=0, interval=4)
        self.wait_for('the work', lambda: self.rows(status='available'))
        self.wait_for_registration(2)
        (row,) = self.rows(status='available')
        # A claim, its end, and a claim, a write and a release.
        self.assertEqual((None, 5), (row.service_id, row.generation))

    def check_restart(self) -> None:
        """Stop one as systemd does, and start it again at once."""
        for number in (1, 2, 3):
            # Whoever waits for its beat waits for too long.
            agent = self.start(interval=100)
            self.wait_for_registration(number, beats=False)
            agent.process.terminate()
            self.assertEqual(0, agent.process.wait(60))
            self.assertFalse(self.service().is_up)
            self.assertNotIn('waiting', agent.said())

    def check_replace(self) -> None:
        """Replace one that works, and one that sleeps over its work."""
        self.request()
        first = self.start()
        self.wait_for_registration(1)
        self.wait_for('it to work', lambda: self.held_by('h'))
        second = self.start('--replace', worker_seconds=2)
        self.assertEqual(1, first.process.wait(60))
        for part in ('agent on host h', '--host', '--binary'):
            self.assertIn(part, first.last_line())
        self.assertIn('the write was refused', first.said())
        self.wait_for_registration(2)
        self.wait_for('it to work', lambda: self.held_by('h'))
        second.process.send_signal(signal.SIGSTOP)
        # Its worker believes, when it wakes, that it has done its work.
        time.sleep(2)
        third = self.start('--replace', worker_seconds=5)
        self.wait_for('another claim', lambda: self.generations() == [5])
        second.process.send_signal(signal.SIGCONT)
        self.assertEqual(1, second.process.wait(60))
        self.assertIn('the write was refused', second.said())
        self.wait_for('the work', lambda: self.rows(status='available'))
        self.assertEqual([5], [e.generation for e in self.effects()])
        third.process.terminate()
        self.assertEqual(0, third.process.wait(60))

    def generations(self) -> list[int | None]:
        """Return the generations of the claims that are held."""
        return [row.claim_generation for row in self.held_by('h')]


class OnEachDatabase(RegistrationsTestCase):
    def test_a_second_one_refuses_to_start(self) -> None:
        self.check_second()

    def test_of_some_that_start_at_once_one_lives(self) -> None:
        self.check_race()

    def test_after_a_kill_the_next_waits_and_starts(self) -> None:
        self.check_kill()

    def test_after_a_clean_stop_the_next_starts_at_once(self) -> None:
        self.check_restart()

    def test_one_that_is_replaced_ends_and_writes_nothing(self) -> None:
        self.check_replace()


class TestSQLite(OnEachDatabase):
    server_class = None


class TestMariaDB(OnEachDatabase):
    server_class = servers.MariaDB


class TestPostgreSQL(OnEachDatabase):
    server_class = servers.PostgreSQL
