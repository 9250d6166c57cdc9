"""The base class of tests that need a server of their own."""

import subprocess
import sys
import unittest
from typing import Any
from typing import ClassVar

import sqlalchemy as sa

from myservice import context
from myservice import fixtures
from myservice import servers
from myservice.db import models
from myservice.tests import base


class ServerTestCase(base.DatabaseTestCase):
    """A test on a private server, one for the class; SQLite has none."""

    server_class: ClassVar[type[servers.Server] | None]
    settings: ClassVar[dict[str, Any]] = {}
    server: ClassVar[servers.Server]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if not hasattr(cls, 'server_class'):
            raise unittest.SkipTest('for the classes that name a server')
        if cls.server_class is not None:
            cls.server = cls.server_class(**cls.settings)
            cls.server.setUp()
            cls.addClassCleanup(cls.server.cleanUp)

    def setUp(self) -> None:
        super(base.DatabaseTestCase, self).setUp()
        url = None if self.server_class is None else self.server.url
        self.database = self.useFixture(fixtures.Database(url))
        if url is not None:
            made = sa.create_engine(url)
            models.Base.metadata.drop_all(made)
            models.Base.metadata.create_all(made)
            made.dispose()
        self.context = context.get_admin_context()

    def write_config(self, **service: Any) -> str:
        """Write a configuration file for programs, and return its path."""
        path = self.create_tempfiles([('test', '')], '.conf')[0]
        with open(path, 'w') as file:
            file.write(
                f'[database]\nconnection = {self.database.connection}\n'
            )
            file.write('[service]\n')
            file.writelines(f'{k} = {v}\n' for k, v in service.items())
        return str(path)

    def program(self, name: str, config: str, *arguments: str) -> list[str]:
        """Return the command line of one of our programs."""
        module = f'myservice.cmd.{name}'
        return [
            sys.executable,
            '-m',
            module,
            '--config-file',
            config,
            *arguments,
        ]

    def check_run(self, module: str, *arguments: str) -> None:
        """Run a program of these tests on the database; it has to end with 0.

        :param module: its module, beside this one
        :param arguments: what follows the URL of the database
        """
        process = subprocess.run(
            [
                *(
                    sys.executable,
                    '-m',
                    f'myservice.tests.functional.{module}',
                ),
                *(self.database.connection, *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        # Past what captures the output of tests: the figures are for people.
        name = type(self).__name__
        print(f'\n{name}: {process.stdout}', file=sys.__stderr__)
        self.assertEqual(0, process.returncode, process.stdout)
