"""Private database servers on loopback, in temporary directories.

A fixture starts one for a test. The program starts one for a whole run::

    python -m myservice.servers mariadb -- stestr run

starts a server, passes its URL to the command in MYSERVICE_TEST_CONNECTION,
stops the server, and exits with the exit code of the command.
"""

import argparse
import getpass
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any
from typing import ClassVar

import fixtures
import sqlalchemy as sa

CONNECTION = 'MYSERVICE_TEST_CONNECTION'


class Server(fixtures.Fixture):
    """A private server; ``url`` is that of its empty database ``test``."""

    program: ClassVar[str]
    driver: ClassVar[str]
    user: ClassVar[str]

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None

    def _setUp(self) -> None:
        # Not inside of a directory that a test has made: the account of
        # PostgreSQL has no access to those.
        top = os.environ.get('TMPDIR', '/tmp')
        self.directory = pathlib.Path(
            tempfile.mkdtemp(prefix='myservice-', dir=top)
        )
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.port = _free_port()
        self.initialise()
        self.addCleanup(self.stop)
        self.start()
        self.make_database()

    def make_database(self) -> None:
        """Make the database ``test``."""
        with sa.create_engine(
            self.root_url, isolation_level='AUTOCOMMIT'
        ).connect() as connection:
            connection.execute(sa.text('CREATE DATABASE test'))

    @property
    def url(self) -> str:
        """The URL of the database ``test``."""
        return f'{self.driver}://{self.user}@127.0.0.1:{self.port}/test'

    @property
    def root_url(self) -> sa.URL:
        """The URL of a database that exists from the start."""
        raise NotImplementedError

    def initialise(self) -> None:
        """Make the data directory."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """Return the command that starts the server in the foreground."""
        raise NotImplementedError

    def account(self) -> dict[str, Any]:
        """Return the arguments of Popen that choose the account."""
        return {}

    def environment(self) -> dict[str, str]:
        """Return additional environment variables of the server."""
        return {}

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with (self.directory / 'log').open('ab') as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                env=os.environ | self.environment(),
                **self.account(),
            )
        engine = sa.create_engine(self.root_url, poolclass=sa.NullPool)
        for _ in range(600):
            try:
                engine.connect().close()
                return
            except sa.exc.OperationalError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.1)
        raise RuntimeError(
            f'{self.program} did not start:\n'
            + (self.directory / 'log').read_text()
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the server; SIGKILL crashes it."""
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(how)
            process.wait(60)

    def pause(self) -> None:
        """Stop the server from answering until ``resume()``."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        self._process.send_signal(signal.SIGCONT)

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise RuntimeError(f'{self.program} is stopped')
        return self.process


class MariaDB(Server):
    """A MariaDB server; settings are options of mariadbd."""

    program = 'mariadbd'
    driver = 'mysql+pymysql'
    user = 'root'

    @property
    def root_url(self) -> sa.URL:
        return sa.make_url(self.url).set(database='mysql')

    def initialise(self) -> None:
        _run(
            [
                _find('mariadb-install-db'),
                '--no-defaults',
                f'--datadir={self.directory}/data',
                f'--tmpdir={self.directory}',
                f'--user={getpass.getuser()}',
                '--auth-root-authentication-method=normal',
                '--skip-test-db',
            ]
        )

    def command(self) -> list[str]:
        settings = {
            # Without fsync; committed writes still survive a kill.
            'innodb_flush_log_at_trx_commit': 2,
            'innodb_buffer_pool_size': '64M',
            'max_connections': 500,
            **self.settings,
        }
        return [
            _find('mariadbd'),
            '--no-defaults',
            f'--user={getpass.getuser()}',
            f'--datadir={self.directory}/data',
            f'--tmpdir={self.directory}',
            f'--socket={self.directory}/socket',
            f'--pid-file={self.directory}/pid',
            f'--port={self.port}',
            '--bind-address=127.0.0.1',
            '--skip-name-resolve',
            *(f'--{name}={value}' for name, value in settings.items()),
        ]


class PostgreSQL(Server):
    """A PostgreSQL server; settings are options of postgresql.conf.

    :param language: the language of its messages, such as 'de'
    """

    program = 'postgres'
    driver = 'postgresql+psycopg'
    user = 'postgres'

    def __init__(self, language: str = 'en', **settings: Any) -> None:
        super().__init__(**settings)
        self.language = language

    @property
    def root_url(self) -> sa.URL:
        return sa.make_url(self.url).set(database='postgres')

    def initialise(self) -> None:
        account = self.account()
        if account:
            shutil.chown(self.directory, account['user'], account['group'])
        _run(
            [
                _find('initdb'),
                f'--pgdata={self.directory}/data',
                '--username=postgres',
                '--auth=trust',
                '--encoding=UTF8',
                '--locale=C.UTF-8',
                '--no-sync',
            ],
            **account,
        )

    def command(self) -> list[str]:
        settings = {
            'fsync': 'off',
            'max_connections': 500,
            'listen_addresses': '127.0.0.1',
            'unix_socket_directories': '',
            **self.settings,
        }
        return [
            _find('postgres'),
            '-D',
            f'{self.directory}/data',
            '-p',
            str(self.port),
            *(
                part
                for name, value in settings.items()
                for part in ('-c', f'{name}={value}')
            ),
        ]

    def account(self) -> dict[str, Any]:
        # It refuses to run as root.
        if os.geteuid() != 0:
            return {}
        group = pwd.getpwnam('postgres').pw_gid
        return {'user': 'postgres', 'group': group, 'extra_groups': []}

    def environment(self) -> dict[str, str]:
        # With its locale, C.UTF-8, messages can be in any language, so no
        # other locale has to be installed.
        return {'LANGUAGE': self.language}

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM waits for clients.
        super().stop(how)


class PgBouncer(Server):
    """PgBouncer in transaction mode, with its own PostgreSQL server.

    Each transaction gets another connection of the server, in turn. Settings
    are options of PgBouncer.
    """

    program = 'pgbouncer'
    driver = PostgreSQL.driver
    user = PostgreSQL.user

    def _setUp(self) -> None:
        self.server = self.useFixture(PostgreSQL())
        super()._setUp()

    @property
    def root_url(self) -> sa.URL:
        return sa.make_url(self.url).set(database='postgres')

    def make_database(self) -> None:
        """Do nothing: its server has the database."""

    def initialise(self) -> None:
        settings = {
            'listen_addr': '127.0.0.1',
            'listen_port': self.port,
            'unix_socket_dir': '',
            'auth_type': 'trust',
            'auth_file': f'{self.directory}/users',
            'auth_user': self.user,
            'pool_mode': 'transaction',
            'server_round_robin': 1,
            # One client that named no database would make all others wait.
            'server_login_retry': 0,
            'min_pool_size': 3,
            'default_pool_size': 40,
            'max_client_conn': 1000,
            **self.settings,
        }
        lines = [
            '[databases]',
            f'* = host=127.0.0.1 port={self.server.port}',
            '[pgbouncer]',
            *(f'{name} = {value}' for name, value in settings.items()),
        ]
        (self.directory / 'ini').write_text('\n'.join(lines))
        (self.directory / 'users').write_text(f'"{self.user}" ""\n')
        account = self.account()
        if account:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, account['user'], account['group'])

    def command(self) -> list[str]:
        return [_find('pgbouncer'), f'{self.directory}/ini']

    def account(self) -> dict[str, Any]:
        # It refuses to run as root, too.
        return self.server.account()

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        # SIGINT would wait for clients.
        super().stop(how)


SERVERS: dict[str, type[Server]] = {
    'mariadb': MariaDB,
    'postgresql': PostgreSQL,
}


def _find(program: str) -> str:
    debian = sorted(pathlib.Path('/usr/lib/postgresql').glob('*/bin'))
    path = os.pathsep.join(
        [os.environ['PATH'], '/usr/sbin', *map(str, reversed(debian))]
    )
    found = shutil.which(program, path=path)
    if found is None:
        raise RuntimeError(
            f'{program} is not installed. On Debian: '
            'apt-get install $(bindep --brief)'
        )
    return found


def _run(command: list[str], **kwargs: Any) -> None:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **kwargs,
    )
    if done.returncode:
        raise RuntimeError(f'{command[0]} failed:\n{done.stdout}')


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> int:
    """Run a command with a private server."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    programs = {**SERVERS, 'pgbouncer': PgBouncer}
    parser.add_argument('server', choices=sorted(programs))
    parser.add_argument('command', nargs='+')
    arguments = parser.parse_args()
    with programs[arguments.server]() as server:
        return subprocess.run(
            arguments.command,
            env=os.environ | {CONNECTION: server.url},
            check=False,
        ).returncode


if __name__ == '__main__':
    sys.exit(main())
