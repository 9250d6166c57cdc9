"""What each number of a driver's error means, in any language."""

import types
from typing import Any

import psycopg.errors
import psycopg.pq
import pymysql
import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import exception
from myservice.db.engine import error_codes
from myservice.db.engine import errors
from myservice.db.engine.error_details import DriverError
from myservice.tests import base

E = db_exception

GERMAN = "Eine Meldung in der Sprache des Servers über »x« und 'y'"

MYSQL: dict[Any, list[int | None]] = {
    E.DBDeadlock: [1205, 1213, 1614, 3101, 3572],
    E.DBConsistencyError: [1020],
    E.DBConnectionError: [
        *(2002, 2003, 2006, 2013, 2014, 2055, 1047, 1053, 1927, 4031),
        *(1152, 1158, 1159, 1160, 1161, 1180, 1184, 0),
    ],
    exception.ServerBusy: [1040, 1203, 1226],
    exception.ServerReadOnly: [1792, 1836],
    exception.StatementInterrupted: [1028, 1317, 1969, 3024],
    exception.NoSpace: [1021, 1114, 1041],
    E.DBDuplicateEntry: [1022, 1062, 1586],
    E.DBReferenceError: [1216, 1217, 1451, 1452],
    E.DBConstraintError: [1048, 1364, 3819, 4025],
    E.DBNonExistentTable: [1051, 1146],
    E.DBNonExistentDatabase: [1008, 1049],
    E.DBDataError: [1153, 1264, 1265, 1292, 1365, 1366, 1406, 1690],
    E.DBNotSupportedError: [1235],
    # None of them has the meaning of a number with the same low byte.
    E.DBError: [1044, 1045, 1050, 1054, 1064, 1091, 1142, 1305, 1290, 1536],
}

POSTGRESQL: dict[Any, list[str]] = {
    E.DBDeadlock: ['40001', '40P01', '55P03'],
    E.DBConnectionError: [
        *('08000', '08001', '08003', '08004', '08006', '08007', '08P01'),
        *('25P03', '26000', '40003', '42P05', '57P01', '57P02', '57P05'),
    ],
    exception.ServerBusy: ['53300', '57P03'],
    exception.ServerReadOnly: ['25006'],
    exception.StatementInterrupted: ['57014'],
    exception.NoSpace: ['53000', '53100', '53200', '53400'],
    E.DBDuplicateEntry: ['23505'],
    E.DBReferenceError: ['23503', '23001'],
    E.DBConstraintError: ['23502', '23514', '23P01', '23000', '40002'],
    E.DBNonExistentTable: ['42P01'],
    E.DBNonExistentDatabase: ['3D000'],
    E.DBDataError: [
        *('22001', '22003', '22007', '22008', '22012', '22021', '22P02'),
        *('22P03', '22P05'),
    ],
    E.DBNotSupportedError: ['0A000'],
    E.DBError: ['25P02', '42601', '42703', '42704', '42883', '58030', 'XX000'],
}


class TestOtherLanguages(base.TestCase):
    """Each number with a text in which nobody finds an English word."""

    def meaning(self, dialect: Any, raised: Exception, **more: Any) -> Any:
        wrapped = sa.exc.DBAPIError.instance(
            'SELECT 1', {}, raised, dialect.loaded_dbapi.Error, dialect=dialect
        )
        self.exception_context = types.SimpleNamespace(
            original_exception=raised,
            sqlalchemy_exception=wrapped,
            dialect=dialect,
            connection=_Connection(),
            execution_context=None,
            statement=more.get('statement', 'SELECT 1'),
            is_disconnect=False,
            invalidate_pool_on_disconnect=True,
        )
        return errors.translate(self.exception_context)

    def mysql(self, number: Any, text: str = GERMAN, **more: Any) -> Any:
        dialect = _dialect('mysql+pymysql://')
        kind = pymysql.err.error_map.get(number, pymysql.OperationalError)
        return self.meaning(dialect, kind(number, text), **more)

    def postgresql(self, sqlstate: str, **more: Any) -> Any:
        dialect = _dialect('postgresql+psycopg://')
        field = psycopg.pq.DiagnosticField
        info = {
            field.SQLSTATE: sqlstate.encode(),
            field.MESSAGE_PRIMARY: GERMAN.encode(),
            field.SOURCE_FUNCTION: more.pop('function', 'x').encode(),
        }
        try:
            kind = psycopg.errors.lookup(sqlstate)
        except KeyError:
            kind = psycopg.DatabaseError
        raised = kind(GERMAN, info=info)
        return self.meaning(dialect, raised, **more)

    def test_mysql(self) -> None:
        for kind, numbers in MYSQL.items():
            for number in numbers:
                error = self.mysql(number)
                self.assertIs(kind, type(error), number)
                lost = kind in (E.DBConnectionError, exception.ServerReadOnly)
                self.assertEqual(
                    lost, self.exception_context.is_disconnect, number
                )

    def test_postgresql(self) -> None:
        for kind, states in POSTGRESQL.items():
            for state in states:
                self.assertIs(kind, type(self.postgresql(state)), state)

    def test_only_one_option_of_many_is_that_of_a_server_that_reads(
        self,
    ) -> None:
        text = 'Der Server läuft mit der Option {} und kann das nicht'
        for option, kind in {
            '--read-only': exception.ServerReadOnly,
            '--read_only': exception.ServerReadOnly,
            '--super-read-only': exception.ServerReadOnly,
            '--secure-file-priv': E.DBError,
            '--skip-grant-tables': E.DBError,
            '--innodb-read-only': E.DBError,
            '--skip-read-only-thing': E.DBError,
        }.items():
            error = self.mysql(1290, text.format(option))
            self.assertIs(kind, type(error), option)

    def test_a_savepoint_that_galera_has_rolled_back(self) -> None:
        error = self.mysql(
            1305,
            'SAVEPOINT sa_savepoint_1 existiert nicht',
            statement='ROLLBACK TO SAVEPOINT sa_savepoint_1',
        )
        self.assertIsInstance(error, E.DBDeadlock)
        self.assertTrue(errors.has_ended_transaction(error))

    def test_a_statement_that_is_stale_was_not_executed(self) -> None:
        for state, function in (
            ('26000', 'FetchPreparedStatement'),
            ('42P05', 'StorePreparedStatement'),
            ('0A000', 'RevalidateCachedQuery'),
        ):
            error = self.postgresql(state, function=function)
            self.assertIsInstance(error, errors.TRANSIENT)
            self.assertTrue(self.exception_context.is_disconnect)
            self.assertFalse(errors.is_lost(error))

    def test_what_is_lost_with_the_statement_is_in_doubt(self) -> None:
        for state in ('40003', '08007', '57P02'):
            self.assertTrue(errors.is_lost(self.postgresql(state)), state)
        for number, lost in ((2013, True), (1180, True), (1047, False)):
            self.assertIs(lost, errors.is_lost(self.mysql(number)), number)

    def test_what_pgbouncer_refuses(self) -> None:
        for text, kind in {
            'FATAL:  no such database: nosuch': E.DBNonExistentDatabase,
            'FATAL:  "trust" authentication failed': E.DBError,
            'FATAL:  server login has been failing': E.DBConnectionError,
        }.items():
            refused = psycopg.errors.FinishedPGconn(db=b'nosuch')
            raised = psycopg.OperationalError(text, pgconn=refused)
            error = error_codes.meaning(
                'postgresql',
                DriverError(
                    raised=raised, wrapped=raised, code='08P01', statement=''
                ),
            )
            self.assertIs(kind, type(error), text)

    def test_packets_out_of_order(self) -> None:
        dialect = _dialect('mysql+pymysql://')
        raised = pymysql.InternalError('Packet sequence number wrong')
        error = self.meaning(dialect, raised)
        self.assertIsInstance(error, E.DBConnectionError)


def _dialect(url: str) -> sa.Dialect:
    return sa.create_engine(url).dialect


class _Connection:
    """A connection that is in no savepoint, and of no form."""

    def get_execution_options(self) -> dict[str, Any]:
        return {}

    def in_nested_transaction(self) -> bool:
        return False
