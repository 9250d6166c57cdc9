"""Lets a migration continue where an earlier one was cut off.

MariaDB and MySQL commit each statement of DDL by itself. If a backup takes its
lock, the connection is lost or the process is killed in the middle of a
revision, its changes stay, but its version is not recorded, so it runs again
from its beginning. Before each statement the schema shows whether it has been
executed already; then it is not sent again.

Revisions need not care. Only SQL of their own, as ``op.execute()`` sends it,
must have the same result when it is repeated.
"""

import functools
from typing import Any

import sqlalchemy as sa
from alembic.ddl import base
from alembic.ddl import mysql
from sqlalchemy import event
from sqlalchemy.engine.interfaces import ReflectedIndex
from sqlalchemy.schema import AddConstraint
from sqlalchemy.schema import CreateIndex
from sqlalchemy.schema import CreateTable
from sqlalchemy.schema import DropConstraint
from sqlalchemy.schema import DropIndex
from sqlalchemy.schema import DropTable

from myservice.db.sql import storage

# Alembic's name for the table of an index that is dropped by its name alone.
_UNKNOWN_TABLE = 'no_table'


def resume(connection: sa.Connection) -> None:
    """Let a connection skip the DDL that has been executed already.

    :param connection: the connection of the migration; it stays like this
    """
    event.listen(connection, 'before_execute', _replace, retval=True)


def _replace(
    connection: sa.Connection,
    statement: sa.Executable,
    multiparams: object,
    params: object,
    execution_options: object,
) -> tuple[sa.Executable, object, object]:
    if isinstance(statement, CreateTable):
        storage.say(statement.element, connection.dialect)
    if isinstance(statement, sa.schema.ExecutableDDLElement):
        if _is_done(statement, sa.inspect(connection)):
            ddl: Any = sa.DDL
            statement = ddl(_rest(connection, statement))
        # After SQLAlchemy has inspected a table of MariaDB, the connection
        # keeps this option, which turns off the translation of its errors.
        connection.execution_options(skip_user_error_events=False)
    return statement, multiparams, params


def _rest(
    connection: sa.Connection, done: sa.schema.ExecutableDDLElement
) -> str:
    """Return the SQL that is left to execute."""
    nothing = 'SELECT 1'
    if not isinstance(done, CreateTable):
        return nothing
    # An earlier release took the server's defaults.
    name = done.element.name
    return storage.conversions(connection, [name]).get(name, nothing)


@functools.singledispatch
def _is_done(
    statement: sa.schema.ExecutableDDLElement, inspector: sa.Inspector
) -> bool:
    """Return whether a statement has been executed already."""
    return False


@_is_done.register
def _(statement: CreateTable, inspector: sa.Inspector) -> bool:
    table = statement.element
    wanted = {column.name for column in table.columns}
    # An index with our name but other columns is an error, and stays one.
    return wanted <= _columns(inspector, table.name, table.schema)


@_is_done.register
def _(statement: DropTable, inspector: sa.Inspector) -> bool:
    table = statement.element
    return not inspector.has_table(table.name, table.schema)


@_is_done.register
def _(statement: CreateIndex, inspector: sa.Inspector) -> bool:
    index: Any = statement.element
    wanted = [column.name for column in index.columns]
    return any(
        there['name'] == index.name
        and there['column_names'] == wanted
        and bool(there['unique']) == bool(index.unique)
        for there in _indexes(inspector, index.table)
    )


@_is_done.register
def _(statement: DropIndex, inspector: sa.Inspector) -> bool:
    index: Any = statement.element
    there = {each['name'] for each in _indexes(inspector, index.table)}
    return index.table.name != _UNKNOWN_TABLE and index.name not in there


@_is_done.register
def _(statement: base.AddColumn, inspector: sa.Inspector) -> bool:
    return statement.column.name in _columns_altered(inspector, statement)


@_is_done.register
def _(statement: base.DropColumn, inspector: sa.Inspector) -> bool:
    return statement.column.name not in _columns_altered(inspector, statement)


@_is_done.register(base.ColumnName)
@_is_done.register(mysql.MySQLChangeColumn)
def _(
    statement: base.ColumnName | mysql.MySQLChangeColumn,
    inspector: sa.Inspector,
) -> bool:
    there = _columns_altered(inspector, statement)
    return statement.newname in there and statement.column_name not in there


@_is_done.register
def _(statement: base.RenameTable, inspector: sa.Inspector) -> bool:
    old, new = statement.table_name, statement.new_table_name
    schema = statement.schema
    return inspector.has_table(new, schema) and not inspector.has_table(
        old, schema
    )


@_is_done.register
def _(statement: AddConstraint, inspector: sa.Inspector) -> bool:
    return _has_constraint(inspector, statement.element)


@_is_done.register
def _(statement: DropConstraint, inspector: sa.Inspector) -> bool:
    return not _has_constraint(inspector, statement.element)


def _columns(
    inspector: sa.Inspector, table: str, schema: str | None
) -> set[str]:
    if not inspector.has_table(table, schema):
        return set()
    return {each['name'] for each in inspector.get_columns(table, schema)}


def _columns_altered(
    inspector: sa.Inspector, statement: base.AlterTable
) -> set[str]:
    return _columns(inspector, statement.table_name, statement.schema)


def _indexes(inspector: sa.Inspector, table: sa.Table) -> list[ReflectedIndex]:
    if not inspector.has_table(table.name, table.schema):
        return []
    return list(inspector.get_indexes(table.name, table.schema))


def _has_constraint(
    inspector: sa.Inspector, constraint: sa.Constraint
) -> bool:
    name, schema = constraint.table.name, constraint.table.schema
    if not inspector.has_table(name, schema):
        return False
    primary_key = inspector.get_pk_constraint(name, schema)
    if isinstance(constraint, sa.PrimaryKeyConstraint):
        # It has no name in MariaDB.
        return bool(primary_key['constrained_columns'])
    others = [
        *inspector.get_unique_constraints(name, schema),
        *inspector.get_foreign_keys(name, schema),
        *inspector.get_check_constraints(name, schema),
    ]
    return constraint.name in {each['name'] for each in others}
