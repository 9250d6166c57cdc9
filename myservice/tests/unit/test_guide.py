"""The guide on sessions: its code is run, and what it shows is compared.

After a block of Python comes what it prints (``text``) and, if the guide says
so, what it sends to a server (``sql``); "…" in these is anything. A block of
``ini`` configures what comes after it. Each page is a test of its own, in
which the first one, ``examples.rst``, has run.
"""

import contextlib
import gc
import io
import pathlib
import re
from collections.abc import Callable
from typing import Any

import fixtures as plain_fixtures
import sqlalchemy as sa
import sybil
from oslo_config import cfg
from oslo_db import exception as db_exception
from sqlalchemy import orm
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers import rest

import myservice
from myservice import conf as options
from myservice import db
from myservice import exception
from myservice import fixtures
from myservice.tests import base

GUIDE = (
    pathlib.Path(myservice.__file__).parents[1] / 'doc/source/user/sessions'
)
LANGUAGES = ('python', 'text', 'sql', 'ini')
BLOCK = re.compile(r'^\.\. (invisible-)?code-block: ?:?', re.MULTILINE)
# A block without a language, which is not run.
LITERAL = re.compile(r'^(?!\.\. ).*[^:]::$', re.MULTILINE)
EXAMPLES = 'examples'
NOTHING = '-- nothing'
# Before a block of Python.
ONLY_ON_MYSQL = '\nOn MariaDB:'
# To whom a block of SQL is sent, by its caption.
IS_SENT = {'mysql': 'MariaDB is sent', 'postgresql': 'PostgreSQL is sent'}


class TestGuide(base.DatabaseTestCase):
    """One test for each page with code is added below."""

    def setUp(self) -> None:
        super().setUp()
        self.between = None if self.backend == 'sqlite' else self.use_proxy()
        self.replica = self.useFixture(fixtures.OtherDatabase())
        self.url: str = self.database.conf.database.connection
        self.namespace: dict[str, Any] = {
            'url': self.url,
            'replica_url': self.replica.connection,
        }
        self.namespace['config_file'] = self.write_config(self.url)
        self.namespace['other_config_file'] = self.write_config(
            self.replica.connection
        )
        self.configure(self.namespace['config_file'])
        # What the last block of Python did, and whether it was left out.
        self.printed: list[str] = []
        self.sent: list[str] = []
        self.skips = False
        self.addCleanup(self.clean_up)

    def write_config(self, connection: str, more: str = '') -> str:
        """Return the path of a new ini file; what is in *more* counts."""
        directory = self.useFixture(plain_fixtures.TempDir()).path
        path = pathlib.Path(directory, 'myservice.conf')
        # A slow machine is no reason to ping.
        lines = ['ping_after_idle = 60', f'connection = {connection}', more]
        path.write_text('\n'.join(['[database]', *lines, '']))
        return str(path)

    def configure(self, path: str) -> cfg.ConfigOpts:
        conf = cfg.ConfigOpts()
        options.register_opts(conf)
        conf(['--config-file', path], project='myservice')
        db.api.configure(conf)
        return conf

    def clean_up(self) -> None:
        """Remove what the examples have made."""
        base_class = self.namespace.get('Base')
        self.namespace.clear()
        # Sessions that the examples left open, on purpose or not.
        gc.collect()
        if base_class is not None:
            engine = sa.create_engine(self.url, poolclass=sa.NullPool)
            base_class.metadata.drop_all(engine)

    def run_page(self, name: str) -> None:
        for each in dict.fromkeys((EXAMPLES, name)):
            for example in PAGES[each]:
                self.run_example(example)
            self.assertEqual([], self.printed, 'it is not shown')

    def run_example(self, example: sybil.Example) -> None:
        language = example.region.lexemes['arguments']
        if language == 'python':
            before = example.document.text[: example.region.start].rstrip()
            is_elsewhere = before.endswith(ONLY_ON_MYSQL)
            self.skips = is_elsewhere and self.backend != 'mysql'
        if not self.skips:
            where = f'{example.path}, line {example.line}\n'
            getattr(self, f'run_{language}')(example, where)

    def run_python(self, example: sybil.Example, where: str) -> None:
        self.assertEqual([], self.printed, f'{where}it is not shown')
        if self.between is not None:
            for form in ('autocommit', 'transaction', 'snapshot'):
                self.database.engine(form).connect().close()
            self.between.clear()
        example.namespace = self.namespace
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            PythonEvaluator()(example)
        self.printed = output.getvalue().splitlines()
        if self.between is not None:
            self.sent = [
                ' '.join((command.sql or command.kind).split())
                for command in self.between.commands
                if command.kind != 'quit'
            ]

    def run_text(self, example: sybil.Example, where: str) -> None:
        self.assertEqual('prints', caption(example), where)
        self.assert_shown(example, self.printed, where)
        self.printed = []

    def run_sql(self, example: sybil.Example, where: str) -> None:
        self.assertIn(caption(example), IS_SENT.values(), where)
        if caption(example) == IS_SENT.get(self.backend):
            self.assert_shown(example, self.sent, where)

    def run_ini(self, example: sybil.Example, where: str) -> None:
        shown = example.parsed.replace('REPLICA', self.replica.connection)
        path = self.write_config(self.url, shown)
        conf = self.configure(path)
        group, *lines = shown.strip().splitlines()
        self.assertEqual('[database]', group, where)
        for line in lines:
            name, value = line.split(' = ')
            self.assertEqual(value, str(conf.database[name]), where)
            if name == 'connection':
                # Nobody is there; but there is a driver.
                sa.make_url(value).get_dialect().import_dbapi()
                self.configure(self.namespace['config_file'])

    def assert_shown(
        self, example: sybil.Example, actual: list[str], where: str
    ) -> None:
        shown = [
            _pattern(line) for line in example.parsed.strip().splitlines()
        ]
        found = ''.join(f'{line}\n' for line in actual or [NOTHING])
        self.assertTrue(re.fullmatch(''.join(shown), found), where + found)

    def test_no_block_is_left_out(self) -> None:
        blocks = sum(len(examples) for examples in PAGES.values())
        text = _text()
        self.assertEqual(len(BLOCK.findall(text)), blocks)
        self.assertEqual([], LITERAL.findall(text))

    def test_what_it_names_is_there(self) -> None:
        text = _text()
        homes = (db.api, exception, db_exception, sa, sa.exc, orm, orm.exc)
        for name in re.findall('``([A-Z][a-z]+[A-Z][A-Za-z]+)``', text):
            self.assertTrue(any(hasattr(home, name) for home in homes), name)
        for name in re.findall(r'\bdb\.api\.(\w+)', text):
            self.assertIn(name, db.api.__all__)
        conf = self.database.conf.database
        for name in re.findall(r'\[database\]`` ``(\w+)``', text):
            self.assertIn(name, conf)


def caption(example: sybil.Example) -> str | None:
    """Return what stands above a block."""
    found: str | None = example.region.lexemes['options'].get('caption')
    return found


def _pattern(line: str) -> str:
    if line == '…':
        return r'(.*\n)*'
    return '.*'.join(map(re.escape, line.split('…'))) + r'\n'


def _text() -> str:
    return '\n'.join(path.read_text() for path in GUIDE.glob('*.rst'))


def _pages() -> dict[str, list[sybil.Example]]:
    parsers = [rest.CodeBlockParser(name, id) for name in LANGUAGES]
    return {
        path.stem: list(sybil.Document.parse(str(path), *parsers).examples())
        for path in GUIDE.glob('*.rst')
        if BLOCK.search(path.read_text())
    }


def _test_of(name: str) -> Callable[[TestGuide], None]:
    return lambda self: self.run_page(name)


PAGES = _pages()
for _name in PAGES:
    setattr(TestGuide, f'test_{_name}', _test_of(_name))
