"""How a schema differs from the models, in words; nothing is written.

Only our tables are compared. Others in the same database belong to an
extension such as PostGIS, or to another application.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import autogenerate
from alembic.runtime.migration import MigrationContext

from myservice.db import models
from myservice.db.sql import storage
from myservice.db.sql import types

# Where alembic notes the revision.
VERSION_TABLE = 'alembic_version'

_COLLATIONS = sa.text(
    'SELECT table_name, column_name, collation_name '
    'FROM information_schema.columns WHERE table_schema = :our_schema'
)


def _is_ours(
    name: str | None, kind: str, parents: Mapping[str, str | None]
) -> bool:
    return kind != 'table' or name in models.Base.metadata.tables


#: how alembic compares
OPTIONS: dict[str, Any] = {'compare_type': True, 'include_name': _is_ours}


def has_tables(connection: sa.Connection) -> bool:
    """Return whether at least one of our tables exists.

    :param connection: a connection to the database
    """
    there = set(sa.inspect(connection).get_table_names())
    return bool(there & {VERSION_TABLE, *models.Base.metadata.tables})


def differences(connection: sa.Connection) -> list[str]:
    """Return the differences, a sentence for each.

    :param connection: a connection to the database
    """
    metadata = models.Base.metadata
    context = MigrationContext.configure(connection, opts=OPTIONS)
    found = autogenerate.compare_metadata(context, metadata)
    stored = storage.conversions(connection, [VERSION_TABLE, *metadata.tables])
    return [
        *map(_in_words, found),
        *_collations(connection),
        *(
            f'table {name} has another engine or row format; "{conversion}" '
            'writes it anew'
            for name, conversion in stored.items()
        ),
    ]


def _in_words(difference: Any) -> str:
    if isinstance(difference, list):
        # All modifications of one column.
        whats = ', '.join(
            each[0].removeprefix('modify_') for each in difference
        )
        _, _, table, column = difference[0][:4]
        return f'column {column} of table {table} has another {whats}'
    what, *_, element = difference
    verb, _, kind = what.partition('_')
    state = 'is missing' if verb == 'add' else 'is not in the models'
    if kind == 'table':
        return f'table {element.name} {state}'
    table = difference[2] if kind == 'column' else element.table.name
    return f'{kind} {element.name} of table {table} {state}'


def _collations(connection: sa.Connection) -> Iterator[str]:
    """Return which columns compare text in another way."""
    wanted = types.exact_collation(connection.dialect)
    if wanted is None:
        return
    schema = connection.dialect.default_schema_name
    there = {
        (table, column): collation
        for table, column, collation in connection.execute(
            _COLLATIONS, {'our_schema': schema}
        )
    }
    for table in models.Base.metadata.sorted_tables:
        for column in table.columns:
            if not isinstance(column.type, types.ExactString):
                continue
            collation = there.get((table.name, column.name), wanted)
            if collation != wanted:
                yield (
                    f'column {column.name} of table {table.name} has the '
                    f'collation {collation} instead of {wanted}'
                )
