"""Wrong statements, and the error that each mistake raises."""

from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exception

from myservice import exception

E = db_exception

METADATA = sa.MetaData()
PARENT = sa.Table(
    'parent',
    METADATA,
    sa.Column('id', sa.Integer, primary_key=True, autoincrement=False),
    sa.Column('u', sa.String(10), unique=True),
    sa.Column('a', sa.Integer),
    sa.Column('b', sa.Integer),
    sa.Column('n', sa.Integer, nullable=False),
    sa.Column('big', sa.BigInteger),
    sa.Column('at', sa.DateTime),
    sa.Column('price', sa.Numeric(5, 2)),
    sa.UniqueConstraint('a', 'b', name='parent_a_b_key'),
    sa.CheckConstraint('n > 0', name='n_positive'),
)
CHILD = sa.Table(
    'child',
    METADATA,
    sa.Column('id', sa.Integer, primary_key=True, autoincrement=False),
    sa.Column('parent_id', sa.ForeignKey('parent.id', name='child_of_parent')),
)

# The error of each mistake. A statement is one for all backends, or one for
# each; if a backend has none, the mistake does not exist there.
Statement = str | dict[str, str]
WRONG: dict[str, tuple[Any, Statement]] = {
    'duplicate primary key': (
        E.DBDuplicateEntry,
        'INSERT INTO parent (id, n) VALUES (1, 1)',
    ),
    'duplicate key': (
        E.DBDuplicateEntry,
        "INSERT INTO parent (id, u, n) VALUES (2, 'one', 1)",
    ),
    'duplicate key of two columns': (
        E.DBDuplicateEntry,
        'INSERT INTO parent (id, a, b, n) VALUES (2, 1, 1, 1)',
    ),
    'update to a duplicate key': (
        E.DBDuplicateEntry,
        "UPDATE parent SET u = 'one' WHERE id = 9",
    ),
    'reference to nothing': (
        E.DBReferenceError,
        'INSERT INTO child VALUES (2, 99)',
    ),
    'removal of what is referred to': (
        E.DBReferenceError,
        'DELETE FROM parent WHERE id = 1',
    ),
    'against a CHECK': (
        E.DBConstraintError,
        'INSERT INTO parent (id, n) VALUES (2, -1)',
    ),
    'update against a CHECK': (
        E.DBConstraintError,
        'UPDATE parent SET n = 0',
    ),
    'NULL': (
        E.DBConstraintError,
        'INSERT INTO parent (id, n) VALUES (2, NULL)',
    ),
    'a column without a default left out': (
        E.DBConstraintError,
        'INSERT INTO parent (id) VALUES (2)',
    ),
    'table not there': (E.DBNonExistentTable, 'SELECT * FROM nosuch'),
    'write to a table not there': (
        E.DBNonExistentTable,
        'INSERT INTO nosuch VALUES (1)',
    ),
    'drop of a table not there': (E.DBNonExistentTable, 'DROP TABLE nosuch'),
    'constraint not there': (
        E.DBNonExistentConstraint,
        {
            'mysql': 'ALTER TABLE parent DROP CONSTRAINT nosuch',
            'postgresql': 'ALTER TABLE parent DROP CONSTRAINT nosuch',
        },
    ),
    'column not there': (E.DBError, 'SELECT nosuch FROM parent'),
    'drop of a column not there': (
        E.DBError,
        'ALTER TABLE parent DROP COLUMN nosuch',
    ),
    'syntax': (E.DBError, 'SELEKT 1'),
    'function not there': (E.DBError, 'SELECT nosuch(1)'),
    'wrong number of arguments': (E.DBError, 'SELECT nullif(1, 2, 3)'),
    'ambiguous column': (E.DBError, 'SELECT id FROM parent, child'),
    'table there already': (E.DBError, 'CREATE TABLE parent (id INTEGER)'),
    'wrong number of values': (
        E.DBError,
        'INSERT INTO child VALUES (2, 1, 1)',
    ),
    'aggregate where none may be': (
        E.DBError,
        'SELECT id FROM parent WHERE count(*) > 1',
    ),
    'two rows for one': (
        E.DBError,
        {
            'mysql': 'SELECT (SELECT id FROM parent)',
            'postgresql': 'SELECT (SELECT id FROM parent)',
        },
    ),
    'number out of range for its column': (
        E.DBDataError,
        {
            'mysql': 'UPDATE parent SET a = 3000000000',
            'postgresql': 'UPDATE parent SET a = 3000000000',
        },
    ),
    'decimal out of range': (
        E.DBDataError,
        {
            'mysql': 'UPDATE parent SET price = 12345',
            'postgresql': 'UPDATE parent SET price = 12345',
        },
    ),
    'result out of range': (
        E.DBDataError,
        {
            'mysql': 'SELECT 9223372036854775807 + 1',
            'postgresql': 'SELECT 9223372036854775807::bigint + 1',
            'sqlite': 'SELECT abs(-9223372036854775808)',
        },
    ),
    'sum out of range': (
        E.DBDataError,
        {
            'postgresql': 'UPDATE parent SET a = 2147483647 + a',
            'mysql': 'UPDATE parent SET a = 2147483647 + a',
            'sqlite': (
                'SELECT sum(x) FROM (SELECT 9223372036854775807 AS x '
                'UNION ALL SELECT 1)'
            ),
        },
    ),
    'text too long': (
        E.DBDataError,
        {
            'mysql': "UPDATE parent SET u = 'longer than ten'",
            'postgresql': "UPDATE parent SET u = 'longer than ten'",
        },
    ),
    'no date': (
        E.DBDataError,
        {
            'mysql': "UPDATE parent SET at = 'nonsense'",
            'postgresql': "UPDATE parent SET at = 'nonsense'",
        },
    ),
    'date that does not exist': (
        E.DBDataError,
        {
            'mysql': "UPDATE parent SET at = '2024-02-31'",
            'postgresql': "UPDATE parent SET at = '2024-02-31'",
        },
    ),
    'text for a number': (
        E.DBDataError,
        {
            'mysql': "UPDATE parent SET a = 'x'",
            'postgresql': "UPDATE parent SET a = 'x'",
            'sqlite': "INSERT INTO parent (id, n) VALUES ('x', 1)",
        },
    ),
    'division by zero': (
        E.DBDataError,
        {
            'mysql': 'UPDATE parent SET a = 1 / 0',
            'postgresql': 'UPDATE parent SET a = 1 / 0',
        },
    ),
    'write where it is forbidden': (
        exception.ServerReadOnly,
        {
            'mysql': 'START TRANSACTION READ ONLY; DELETE FROM child',
            'postgresql': 'SET TRANSACTION READ ONLY; DELETE FROM child',
        },
    ),
    'longer than the time limit': (
        exception.StatementInterrupted,
        {
            'mysql': (
                'SET STATEMENT max_statement_time = 0.01 FOR '
                'SELECT count(*) FROM seq_1_to_1000000 x, seq_1_to_1000000 y'
            ),
            'postgresql': (
                'SET LOCAL statement_timeout = 10; SELECT pg_sleep(60)'
            ),
        },
    ),
}
