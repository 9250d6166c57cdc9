"""What each error of each driver is, on all databases alike."""

from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import db
from myservice.tests import base
from myservice.tests import factories
from myservice.tests.wrong_statements import CHILD
from myservice.tests.wrong_statements import METADATA
from myservice.tests.wrong_statements import PARENT
from myservice.tests.wrong_statements import WRONG

E = db_exception

LANGUAGES = (
    *('bg_BG', 'zh_CN', 'cs_CZ', 'da_DK', 'nl_NL', 'en_US', 'et_EE', 'fr_FR'),
    *('ka_GE', 'de_DE', 'el_GR', 'hi_IN', 'hu_HU', 'it_IT', 'ja_JP', 'ko_KR'),
    *('no_NO', 'pl_PL', 'pt_PT', 'ro_RO', 'ru_RU', 'sr_RS', 'sk_SK', 'es_ES'),
    *('sv_SE', 'uk_UA'),
)


class TablesTestCase(base.DatabaseTestCase):
    """A test with the tables from above and a row in each."""

    def setUp(self) -> None:
        super().setUp()
        self.engine = self.database.engine()
        METADATA.create_all(self.engine)
        self.addCleanup(METADATA.drop_all, self.engine)
        with self.engine.begin() as connection:
            for row_id, u in ((1, 'one'), (9, 'nine')):
                connection.execute(
                    sa.insert(PARENT),
                    {'id': row_id, 'u': u, 'a': row_id, 'b': 1, 'n': 1},
                )
            connection.execute(sa.insert(CHILD), {'id': 1, 'parent_id': 1})

    def error_of(self, *statements: str) -> Any:
        with self.engine.connect() as connection:
            for statement in statements[:-1]:
                connection.exec_driver_sql(statement)
            try:
                connection.exec_driver_sql(statements[-1])
            except Exception as error:
                return error
        return None


class TestWrongStatements(TablesTestCase):
    def test_one_mistake_is_one_type(self) -> None:
        found = {}
        expected = {}
        for name, (kind, statement) in WRONG.items():
            if isinstance(statement, dict):
                if self.backend not in statement:
                    continue
                statement = statement[self.backend]
            expected[name] = kind.__name__
            error = self.error_of(*statement.split('; '))
            found[name] = type(error).__name__
        self.assertEqual(expected, found)
        self.assertGreaterEqual(len(WRONG), 30)

    def test_a_number_that_no_column_can_hold(self) -> None:
        with self.engine.connect() as connection:
            for number in (2**63, 2**70, -(2**70)):
                self.assertRaises(
                    E.DBDataError,
                    connection.execute,
                    sa.update(PARENT).values(big=number),
                )
                connection.rollback()

    def test_half_of_a_character(self) -> None:
        with self.engine.connect() as connection:
            self.assertRaises(
                E.DBInvalidUnicodeParameter,
                connection.execute,
                sa.update(PARENT).values(u='\ud83d'),
            )

    def test_a_character_that_the_server_cannot_store(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('SQLite stores all of them')
        text = '\0' if self.backend == 'postgresql' else '\N{GRINNING FACE}'
        with self.engine.connect() as connection:
            if self.backend == 'mysql':
                connection.exec_driver_sql(
                    'ALTER TABLE parent MODIFY u VARCHAR(10) '
                    'CHARACTER SET latin1'
                )
            self.assertRaises(
                E.DBDataError,
                connection.execute,
                sa.update(PARENT).where(PARENT.c.id == 1).values(u=text),
            )

    def test_a_lock_that_is_not_waited_for(self) -> None:
        self.database.configure(sqlite_busy_timeout=0)
        holder = sa.create_engine(self.database.connection)
        self.addCleanup(holder.dispose)
        with holder.connect() as other:
            other.execute(sa.update(PARENT).values(b=2))
            with self.database.engine().connect() as connection:
                self.assertRaises(
                    E.DBDeadlock,
                    connection.execute,
                    sa.select(PARENT).with_for_update(nowait=True),
                )

    def test_a_routine_that_is_not_there_is_not_tried_again(self) -> None:
        calls: list[None] = []

        def call(_: object) -> None:
            calls.append(None)
            with db.api.transaction(self.context) as session:
                session.execute(sa.text('SELECT nosuch(1)'))

        self.assertRaises(
            E.DBError, db.api.run_in_transaction, self.context, call
        )
        self.assertEqual(1, len(calls))


class TestDetails(TablesTestCase):
    def test_columns_and_value_of_a_duplicate(self) -> None:
        one = self.error_of(
            "INSERT INTO parent (id, u, n) VALUES (2, 'one', 1)"
        )
        two = self.error_of(
            'INSERT INTO parent (id, a, b, n) VALUES (2, 1, 1, 1)'
        )
        columns = {
            'mysql': (['u'], ['parent_a_b_key']),
            'postgresql': (['u'], ['a', 'b']),
            'sqlite': (['u'], ['a', 'b']),
        }[self.backend]
        values = {
            'mysql': ('one', '1-1'),
            'postgresql': ('one', '1, 1'),
            'sqlite': (None, None),
        }[self.backend]
        self.assertEqual(columns, (one.columns, two.columns))
        self.assertEqual(values, (one.value, two.value))

    def test_a_value_full_of_quotes(self) -> None:
        value = "a' (b)=(c"
        with self.engine.begin() as connection:
            connection.execute(
                sa.insert(PARENT), {'id': 2, 'u': value, 'n': 1}
            )
        with self.engine.connect() as connection:
            error = self.assertRaises(
                E.DBDuplicateEntry,
                connection.execute,
                sa.insert(PARENT),
                {'id': 3, 'u': value, 'n': 1},
            )
        self.assertEqual(['u'], error.columns)
        self.assertIn(error.value, (None, value))

    def test_a_reference_to_nothing(self) -> None:
        error = self.error_of('INSERT INTO child VALUES (2, 99)')
        self.assertEqual(
            (None,) * 4
            if self.backend == 'sqlite'
            else ('child', 'child_of_parent', 'parent_id', 'parent'),
            (error.table, error.constraint, error.key, error.key_table),
        )

    def test_a_removal_of_what_is_referred_to(self) -> None:
        error = self.error_of('DELETE FROM parent WHERE id = 1')
        self.assertEqual(
            {
                'sqlite': (None,) * 4,
                'mysql': ('child', 'child_of_parent', 'parent_id', 'parent'),
                'postgresql': ('parent', 'child_of_parent', 'id', 'child'),
            }[self.backend],
            (error.table, error.constraint, error.key, error.key_table),
        )

    def test_a_check(self) -> None:
        error = self.error_of('UPDATE parent SET n = 0')
        self.assertEqual('n_positive', error.check_name)
        if self.backend != 'sqlite':
            self.assertEqual('parent', error.table)

    def test_a_table(self) -> None:
        self.assertEqual('nosuch', self.error_of('DROP TABLE nosuch').table)
        error = self.error_of('SELECT * FROM nosuch')
        self.assertEqual('nosuch', error.table)

    def test_a_database(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('a database of SQLite is a file')
        engine = self.database.engine('autocommit')
        with engine.connect() as connection:
            error = self.assertRaises(
                E.DBNonExistentDatabase,
                connection.exec_driver_sql,
                'DROP DATABASE nosuch',
            )
        self.assertEqual('nosuch', error.database)

    def test_a_database_to_connect_to(self) -> None:
        url = sa.make_url(self.database.connection)
        name = '/nosuch/file' if self.backend == 'sqlite' else 'nosuch'
        wrong = url.set(database=name).render_as_string(hide_password=False)
        self.database.configure(connection=wrong)
        error = self.assertRaises(
            E.DBNonExistentDatabase, db.api.service_get_all, self.context
        )
        if self.backend != 'sqlite':
            self.assertEqual('nosuch', error.database)

    def test_a_constraint(self) -> None:
        if self.backend == 'sqlite':
            self.skipTest('SQLite drops no constraints')
        error = self.error_of('ALTER TABLE parent DROP CONSTRAINT nosuch')
        self.assertEqual('parent', error.table)
        self.assertEqual('nosuch', error.constraint)

    def test_sqlalchemy_can_still_ask_whether_a_table_is_there(self) -> None:
        inspector = sa.inspect(self.engine)
        self.assertTrue(inspector.has_table('parent'))
        self.assertFalse(inspector.has_table('nosuch'))
        self.assertRaises(
            sa.exc.NoSuchTableError,
            sa.Table,
            'nosuch',
            sa.MetaData(),
            autoload_with=self.engine,
        )


class TestStaleStatements(TablesTestCase):
    """Servers forget prepared statements, or what these return changes."""

    def setUp(self) -> None:
        super().setUp()
        if self.backend != 'postgresql':
            self.skipTest('only psycopg prepares statements')
        self.service = factories.create_service()

    def beat(self) -> None:
        db.api.service_heartbeat(self.context, self.service.id)

    def count(self, _: object) -> Any:
        with db.api.transaction(self.context) as session:
            return session.scalar(sa.select(sa.func.max(PARENT.c.n)))

    def run_sql(self, form: Any, sql: str) -> None:
        with self.database.engine(form).connect() as connection:
            connection.exec_driver_sql(sql)
            connection.commit()

    def prepares(self) -> bool:
        with self.database.engine().connect() as connection:
            driver: Any = connection.connection.driver_connection
            return driver.prepare_threshold is not None

    def forget(self, form: Any) -> None:
        # psycopg would notice a plain one.
        self.run_sql(form, "DO 'BEGIN EXECUTE ''DEALLOCATE ALL''; END'")

    def test_a_write_of_one_statement_is_run_again(self) -> None:
        for _ in range(8):
            self.beat()
        if not self.prepares():
            self.skipTest('behind a pooler nothing is prepared')
        self.forget('autocommit')
        before = db.api.statistics().retries
        self.beat()
        self.assertNotEqual(before, db.api.statistics().retries)

    def test_a_transaction_is_run_again(self) -> None:
        for _ in range(8):
            db.api.run_in_transaction(self.context, self.count)
        self.forget('transaction')
        self.assertEqual(
            1, db.api.run_in_transaction(self.context, self.count)
        )

    def test_so_it_is_when_a_column_has_another_type(self) -> None:
        for _ in range(8):
            db.api.run_in_transaction(self.context, self.count)
        alter = 'ALTER TABLE parent ALTER COLUMN n TYPE BIGINT'
        self.run_sql('autocommit', alter)
        self.assertEqual(
            1, db.api.run_in_transaction(self.context, self.count)
        )

    def test_something_else_that_is_not_supported_is_final(self) -> None:
        error = self.error_of(
            'SELECT * FROM parent LEFT JOIN child ON true FOR UPDATE OF child'
        )
        self.assertIs(E.DBNotSupportedError, type(error))


class TestLanguagesOfMariaDB(TablesTestCase):
    """The names in messages, in all languages that MariaDB has."""

    def test_names_are_found(self) -> None:
        if self.backend != 'mysql':
            self.skipTest('only MariaDB changes the language of a session')
        texts = set()
        for language in LANGUAGES:
            self.language = f"SET lc_messages = '{language}'"
            error = self.say('INSERT INTO parent (id, n) VALUES (1, 1)')
            texts.add(str(error.inner_exception.orig))
            self.assertEqual((['PRIMARY'], '1'), (error.columns, error.value))
            error = self.say('INSERT INTO child VALUES (2, 99)')
            self.assertEqual(
                ('child', 'child_of_parent', 'parent_id', 'parent'),
                (error.table, error.constraint, error.key, error.key_table),
            )
            error = self.say('UPDATE parent SET n = 0')
            self.assertEqual('n_positive', error.check_name)
            self.assertEqual('parent', error.table)
            for sql in ('SELECT * FROM nosuch', 'DROP TABLE nosuch'):
                self.assertEqual('nosuch', self.say(sql).table)
            self.assertEqual('nosuch', self.say('USE nosuch').database)
            error = self.say('DROP DATABASE nosuch')
            self.assertEqual('nosuch', error.database)
            error = self.say('ALTER TABLE parent DROP CONSTRAINT nosuch')
            self.assertEqual('nosuch', error.constraint)
        self.assertGreater(len(texts), 15)

    def say(self, statement: str) -> Any:
        try:
            return self.error_of(self.language, statement)
        finally:
            self.engine.dispose()


class TestWords(TablesTestCase):
    def test_words_of_a_value_do_not_decide(self) -> None:
        # Words that SQLAlchemy and oslo.db look for in texts.
        for words in ('x already closed', '1213 Deadlock f', '(2006, '):
            with self.engine.connect() as connection:
                connection.exec_driver_sql('DELETE FROM child')
                connection.exec_driver_sql('DELETE FROM parent')
                driver = connection.connection.driver_connection
                many = [{'id': 1, 'u': words[-10:], 'n': 1}]
                connection.execute(sa.insert(PARENT), many)
                self.assertRaises(
                    E.DBDuplicateEntry,
                    connection.execute,
                    sa.insert(PARENT),
                    [{'id': 2, 'u': words[-10:], 'n': 1}],
                )
                self.assertFalse(connection.invalidated)
                self.assertIs(driver, connection.connection.driver_connection)
