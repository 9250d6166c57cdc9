"""The programs as processes: terminals, pipes, disks, files and signals."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from typing import Any

import fixtures as plain_fixtures
from oslo_db import exception as db_exception

from myservice import db
from myservice import exception
from myservice.tests import factories
from myservice.tests.unit.cmd import test_manage

NAME = 'Zürich-東京'
ASCII = 'Z\\xfcrich-\\u6771\\u4eac'

ANSWERS = (
    ('service', 'list'),
    ('service', 'list', '--json'),
    ('db', 'version', '--json'),
    ('config', 'sample'),
)


class ProgramTestCase(test_manage.ManageTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.done('db', 'sync')

    def command(self, *arguments: str, program: str = 'manage') -> list[str]:
        """Return the command line of a program."""
        return [
            *(sys.executable, '-m', f'myservice.cmd.{program}'),
            *('--config-file', str(self.config), *arguments),
        ]

    def process(
        self,
        command: list[str],
        environment: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run a process to its end; stdout and stderr are bytes."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(('PYTHON', 'LC_', 'LANG'))
        }
        return subprocess.run(
            command,
            check=False,
            env=inherited | (environment or {}),
            timeout=120,
            **{'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | kwargs,
        )

    def assert_one_line(self, err: bytes, start: str) -> None:
        """Check that stderr is one line, and how it starts."""
        text = err.decode()
        self.assertEqual(start, text[: len(start)])
        self.assertEqual(1, text.count('\n'), text)


class TestOutput(ProgramTestCase):
    def test_what_a_terminal_cannot_show_is_escaped(self) -> None:
        factories.create_service(host=NAME)
        for environment in (
            {'PYTHONIOENCODING': 'ascii'},
            {
                'LC_ALL': 'C',
                'PYTHONCOERCECLOCALE': '0',
                'PYTHONUTF8': '0',
            },
        ):
            done = self.process(self.command('service', 'list'), environment)
            self.assertEqual((0, b''), (done.returncode, done.stderr))
            self.assertIn(ASCII, done.stdout.decode('ascii'))
            done = self.process(
                self.command('service', 'list', '--json'), environment
            )
            self.assertEqual((0, b''), (done.returncode, done.stderr))
            (row,) = json.loads(done.stdout.decode('ascii'))
            self.assertEqual(NAME, row['host'])
            for arguments in (('--help',), ('service', 'list', '--help')):
                done = self.process(self.command(*arguments), environment)
                self.assertEqual((0, b''), (done.returncode, done.stderr))

    def test_half_of_a_character_is_refused_in_one_line(self) -> None:
        command = [
            os.fsencode(each)
            for each in self.command('service', 'list', '--host')
        ]
        done = self.process([*command, b'\xff\xfe'])  # type: ignore[list-item]
        self.assertEqual((2, b''), (done.returncode, done.stdout))
        self.assert_one_line(done.stderr, 'myservice-manage: Invalid input')

    def test_a_pipe_that_nobody_reads_ends_it_quietly(self) -> None:
        for unbuffered in ('', '1'):
            for arguments in ANSWERS:
                reader, writer = os.pipe()
                os.close(reader)
                done = self.process(
                    self.command(*arguments),
                    {'PYTHONUNBUFFERED': unbuffered},
                    stdout=writer,
                )
                os.close(writer)
                self.assertEqual(
                    (128 + signal.SIGPIPE, b''),
                    (done.returncode, done.stderr),
                    arguments,
                )

    def test_no_stdout_is_told_in_one_line(self) -> None:
        for arguments in ANSWERS:
            done = self.process(
                ['sh', '-c', 'exec "$@" >&-', 'sh', *self.command(*arguments)]
            )
            self.assertEqual(2, done.returncode, arguments)
            self.assert_one_line(
                done.stderr,
                'myservice-manage: the answer cannot be written: ',
            )

    def test_without_stdout_what_is_told_to_be_done_is_done(self) -> None:
        made = factories.create_service()
        self.process(
            [
                *('sh', '-c', 'exec "$@" >&- 2>&-', 'sh'),
                *self.command('service', 'disable', made.id),
            ]
        )
        self.assertTrue(db.api.service_get(self.context, made.id).disabled)

    def test_a_disk_that_is_full_is_told_in_one_line(self) -> None:
        full = pathlib.Path('/dev/full')
        if not full.exists():
            self.skipTest('there is no /dev/full')
        with full.open('wb') as disk:
            for unbuffered in ('', '1'):
                for arguments in ANSWERS:
                    done = self.process(
                        self.command(*arguments),
                        {'PYTHONUNBUFFERED': unbuffered},
                        stdout=disk,
                    )
                    self.assertEqual(2, done.returncode, arguments)
                    self.assert_one_line(
                        done.stderr,
                        'myservice-manage: the answer cannot be written: ',
                    )
            done = self.process(
                self.command('service', 'list'), stdout=disk, stderr=disk
            )
            self.assertEqual(2, done.returncode)


class TestFiles(ProgramTestCase):
    def test_one_in_another_encoding_is_told_in_one_line(self) -> None:
        self.config.write_bytes('# Zürich\n'.encode('latin-1'))
        for program in ('manage', 'agent'):
            done = self.process(self.command(program=program))
            self.assertEqual((2, b''), (done.returncode, done.stdout))
            self.assert_one_line(
                done.stderr,
                f'myservice-{program}: Invalid input for {self.config}: it is '
                'not a text file: ',
            )


def _heed_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class TestInterrupt(ProgramTestCase):
    def test_ctrl_c_ends_it_without_a_traceback(self) -> None:
        with socket.create_server(('127.0.0.1', 0)) as listener:
            port = listener.getsockname()[1]
            self.configure(
                f'connection = mysql+pymysql://nobody@127.0.0.1:{port}/x'
            )
            process = subprocess.Popen(
                self.command('service', 'list'),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # As operators run it. The driver does not close a socket
                # whose handshake is interrupted, and a test run says so.
                env={**os.environ, 'PYTHONWARNINGS': 'ignore'},
                # The tests may be a job in the background of a shell, which
                # ignores Ctrl-C, and so does what is started from there.
                preexec_fn=_heed_ctrl_c,
            )
            self.addCleanup(process.communicate)
            self.addCleanup(process.kill)
            # It waits for a server that says nothing.
            listener.settimeout(60)
            with listener.accept()[0]:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
        self.assertEqual(
            (128 + signal.SIGINT, b'', b''), (process.returncode, out, err)
        )


class TestDatabaseErrors(test_manage.ManageTestCase):
    """There is one tuple of what a database in trouble makes of a call."""

    def test_each_of_them_is_2_and_one_line(self) -> None:
        self.done('db', 'sync')
        errors: list[Exception] = [
            exception.PoolTimeout(timeout=30, held=55),
            exception.CommitUnknown(function='f', operation='x', known='lost'),
            exception.ServerBusy(reason='full'),
            db_exception.DBError(OSError('gone')),
        ]
        for kind in db.api.DATABASE_ERRORS:
            self.assertTrue(any(isinstance(each, kind) for each in errors))
        for error in errors:

            def fail(*_: Any, error: Exception = error, **__: Any) -> None:
                raise error

            self.useFixture(
                plain_fixtures.MonkeyPatch(
                    'myservice.db.api.service_get_all', fail
                )
            )
            self.assertIn(
                'the database cannot be used: ',
                self.refused(2, 'service', 'list'),
            )
