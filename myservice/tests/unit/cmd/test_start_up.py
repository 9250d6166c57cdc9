"""What is not imported, so that programs and services start soon."""

import subprocess
import sys
from importlib import util

from myservice.tests import base

# What single commands of the programs need: to migrate, to draw a table, to
# print a sample of a configuration file.
OF_COMMANDS = {
    'alembic',
    'mako',
    'myservice.db.migration',
    'oslo_config.generator',
    'pygments',
    'rich',
    'yaml',
}
# What the programs need, all in all. Other things that only they import, as
# argparse and stevedore, oslo.config needs too.
OF_PROGRAMS = OF_COMMANDS | {
    'myservice.agent.process',
    'myservice.cmd',
    'myservice.agent.periodic',
    'myservice.agent.worker_pool',
    'myservice.worker',
    'oslo_log.log',
    'pbr',
}


class TestStartUp(base.DatabaseTestCase):
    def loaded_by(self, code: str) -> set[str]:
        """Return the names of the modules that a process has in the end."""
        tell = 'lambda: print("loaded:", *sys.modules, file=sys.stderr)'
        done = subprocess.run(
            [
                *(sys.executable, '-c'),
                f'import atexit, sys; atexit.register({tell})\n{code}',
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return set(done.stderr.rpartition('loaded:')[2].split())

    def loaded_by_command(self, *arguments: str) -> set[str]:
        """Return what myservice-manage has imported when it has answered."""
        path = self.create_tempfiles(
            [('test', f'[database]\nconnection={self.database.connection}\n')],
            '.conf',
        )[0]
        argv = ['--config-file', path, *arguments]
        return self.loaded_by(
            'from myservice.cmd import manage\n'
            f'sys.exit(manage.main({argv!r}))'
        )

    def test_db_api_loads_nothing_that_only_programs_need(self) -> None:
        loaded = self.loaded_by('import myservice.db.api')
        self.assertIn('myservice.db.api', loaded)
        self.assertEqual(set(), loaded & OF_PROGRAMS)

    def test_help_loads_nothing_that_only_single_commands_need(self) -> None:
        loaded = self.loaded_by_command('--help')
        self.assertIn('myservice.cmd.manage_quota', loaded)
        self.assertEqual(set(), loaded & OF_COMMANDS)

    def test_an_answer_in_json_loads_nothing_that_draws(self) -> None:
        loaded = self.loaded_by_command('service', 'list', '--json')
        self.assertEqual(set(), loaded & OF_COMMANDS)

    def test_the_names_above_are_those_of_modules(self) -> None:
        for name in OF_PROGRAMS:
            self.assertIsNotNone(util.find_spec(name), name)
