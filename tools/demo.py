"""The main job, on SQLite, for a person to watch: ``tox -e demo``.

Three agents live as processes; one is killed and seen down, one is disabled,
the dead one is destroyed, the others are stopped. Each step checks that what
it says is so; the first that is not ends the demo with exit code 1.
"""

import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

CONFIG = """\
[database]
connection = sqlite:///{directory}/demo.sqlite

[service]
report_interval = 0.5
down_time = 2
"""


class Demo:
    """The steps, in order.

    :param directory: for the configuration and the database
    :param processes: ends the agents, however the demo ends
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
        self.wait_for('three agents that are up', lambda: self.up() == 'abc')
        self.show('service', 'list')

        self.step('Kill agent c with SIGKILL: it is down within down_time')
        agents['c'].kill()
        killed = time.monotonic()
        self.wait_for('agent c to be down', lambda: self.up() == 'ab')
        seconds = time.monotonic() - killed
        print(f'Seen down after {seconds:.1f} seconds.')
        self.check('it took down_time and not much more', seconds < 5)
        self.show('service', 'list')

        self.step('Disable agent b, with a reason')
        reason = 'its disk is replaced'
        self.show('service', 'disable', self.id_of('b'), '--reason', reason)
        self.check(
            'b is disabled for that reason',
            self.service('b')['disabled_reason'] == reason,
        )
        self.check('b is still up', self.service('b')['is_up'])

        self.step('Destroy the dead one')
        self.show('service', 'remove', self.id_of('c'))
        self.show('service', 'list')
        self.check('a and b are left', self.hosts() == 'ab')

        self.step('Stop the others with SIGTERM')
        for host in 'ab':
            agents[host].send_signal(signal.SIGTERM)
            code = agents[host].wait(20)
            self.check(f'agent {host} left with exit code 0', code == 0)
        self.wait_for('nobody to be up', lambda: self.up() == '')
        print('\nAll of it was as it should be.')

    def step(self, title: str) -> None:
        """Say what comes."""
        print(f'\n== {title} ==', flush=True)

    def check(self, claim: str, holds: bool) -> None:
        """End the demo unless a claim holds."""
        print(f'  {"yes" if holds else "NO"}: {claim}', flush=True)
        if not holds:
            raise SystemExit(1)

    def wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds, and end the demo if it never does."""
        for _ in range(60):
            if holds():
                return
            time.sleep(0.25)
        self.check(what, False)

    def start_agent(self, host: str) -> subprocess.Popen[bytes]:
        """Start an agent, to be killed at the latest when the demo ends."""
        agent = subprocess.Popen(
            [*self.program('agent'), '--host', host, '--binary', 'demo']
        )
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
        """Return what ``service list --json`` says."""
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


def main() -> None:
    """Run the demo in a directory of its own."""
    # So that the agents are ended then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with (
        tempfile.TemporaryDirectory(prefix='myservice-demo-') as directory,
        contextlib.ExitStack() as processes,
    ):
        Demo(pathlib.Path(directory), processes).run()


if __name__ == '__main__':
    main()
