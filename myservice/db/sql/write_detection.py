"""The effects of statements: do they write or lock, or end the transaction?

SQLAlchemy's constructs tell it. In a text, names, comments and quoted parts
are ignored. If it is not surely a read, it counts as a write.
"""

import enum
import re
import weakref
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.sql import elements
from sqlalchemy.sql import selectable
from sqlalchemy.sql import visitors

from myservice import exception
from myservice.db.sql.dialects import ABILITIES
from myservice.db.sql.dialects import backend_of


class Effect(enum.IntEnum):
    """The effect of a statement; more includes less."""

    READS = 0
    LOCKS = 1
    WRITES = 2


# Constructs whose effect is only in their SQL.
IN_SQL = (sa.TextClause, sa.schema.ExecutableDDLElement, str)

# SQLAlchemy's names for the parts of a SELECT that may write or lock.
_TELLING = {'insert', 'update', 'delete', 'textclause', 'clause'}

_OF_SAVEPOINTS = (
    elements.SavepointClause,
    elements.RollbackToSavepointClause,
    elements.ReleaseSavepointClause,
)

# Text, names, comments, bodies of PostgreSQL's functions; MariaDB executes
# /*! such comments */.
_CONTENTS = re.compile(
    r"""'[^']*'|"[^"]*"|`[^`]*`|\$(\w*)\$.*?\$\1\$|--[^\n]*"""
    r"""|/\*(?!M?!).*?\*/""",
    re.S,
)
# The same for MariaDB.
_MYSQL_CONTENTS = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`|--(?=\s)[^\n]*|#[^\n]*"""
    r"""|/\*(?!M?!).*?\*/""",
    re.S,
)

# Lines of comment at the beginning: no statement begins with these signs.
_LEADING = re.compile(r'\A(?:\s*(?:--|#)[^\n]*\n)+')

_READS = re.compile(
    r'[\s(]*(?:(explain|desc|describe)|select|values|table|show|with)\b',
    re.I,
)
_LOCKS = re.compile(
    r'\bfor\s+(?:no\s+key\s+)?update\b|\bfor\s+(?:key\s+)?share\b'
    r'|\block\s+in\s+share\s+mode\b',
    re.I,
)
_WRITES = re.compile(r'\b(?:insert|update|delete|merge|into)\b', re.I)
_ANOTHER = re.compile(r';\s*\S')
# With ANALYZE, EXPLAIN executes the statement.
_EXECUTES = re.compile(r'\banaly[sz]e\b', re.I)
_EXECUTED = re.compile(r'\b(?:create|refresh|execute|declare)\b', re.I)

_ENDS = re.compile(
    r'(?:\A|;)[\s(]*(?:commit|rollback)\b'
    r'(?!\s+(?:work\s+|transaction\s+)?to\b)'
    r'|\A[\s(]*(?:begin|start\s+transaction|end|abort|prepare\s+transaction|xa'
    r'|set\s+(?:(?:session|local)\s+|@@(?:session\.|local\.)?)?autocommit)\b',
    re.I,
)
# MariaDB silently commits before and after these.
_COMMITS = re.compile(
    r'\A\s*(?:alter|(?:create|drop)(?!(?:\s+or\s+replace)?\s+temporary)'
    r'|rename|truncate|grant|revoke|(?:un)?lock\s+tables?'
    r'|(?:analyze|check|optimize|repair)\s+(?:\w+\s+)?tables?'
    r'|flush|cache\s+index|load\s+index|reset|set\s+password)\b',
    re.I,
)

# Examining a SELECT takes longer than looking it up. The cache does not keep
# it alive: it may contain values of any size.
_reading: weakref.WeakSet[sa.Executable] = weakref.WeakSet()


def effect_of(statement: sa.Executable | str) -> Effect:
    """Return what a statement does.

    :param statement: an executable of SQLAlchemy, or SQL
    """
    if statement in _reading:
        return Effect.READS
    effect = _look_at(statement)
    if effect is Effect.READS and not isinstance(statement, str):
        _reading.add(statement)
    return effect


def writes(statement: sa.Executable | str) -> bool:
    """Return whether a statement may write.

    :param statement: an executable of SQLAlchemy, or SQL
    """
    return effect_of(statement) is Effect.WRITES


def refuse_write(statement: sa.Executable | str) -> None:
    """Refuse a statement that does more than read without locks.

    :param statement: an executable of SQLAlchemy, or SQL
    :raises WriteInReadOnly: when it may write, or locks
    """
    if effect_of(statement) is not Effect.READS:
        raise exception.WriteInReadOnly(statement=shown(statement))


def shown(statement: sa.Executable | str) -> str:
    """Return a statement as a message shows it.

    :param statement: an executable of SQLAlchemy, or SQL
    """
    return f'{statement!s:.1000}'


def _look_at(statement: sa.Executable | str) -> Effect:
    if isinstance(statement, str):
        return _effect_of_sql(statement)
    if isinstance(statement, sa.TextClause):
        return _effect_of_sql(statement.text)
    if isinstance(statement, sa.TextualSelect | FromStatement):
        return effect_of(statement.element)
    if isinstance(statement, _OF_SAVEPOINTS):
        return Effect.READS
    if not getattr(statement, 'is_select', False):
        return Effect.WRITES
    select: Any = statement
    effects = [
        _effect_of_part(part)
        for part in visitors.iterate(select)
        if part.__visit_name__ in _TELLING
    ]
    return max(effects, default=Effect.READS)


def _effect_of_part(part: visitors.Visitable) -> Effect:
    # PostgreSQL lets a CTE of a SELECT write.
    if getattr(part, 'is_dml', False):
        return Effect.WRITES
    if isinstance(part, selectable.ForUpdateArg):
        return Effect.LOCKS
    if isinstance(part, sa.TextClause):
        return max(_effect_of_clause(text) for text in _readings(part.text))
    return Effect.READS


def _readings(sql: str) -> tuple[str, str]:
    # Databases differ in the ends of strings, and in the beginnings of
    # comments.
    sql = _LEADING.sub('', sql)
    return _CONTENTS.sub(' ', sql), _MYSQL_CONTENTS.sub(' ', sql)


def _effect_of_sql(sql: str) -> Effect:
    return max(_effect_of_reading(text) for text in _readings(sql))


def _effect_of_reading(text: str) -> Effect:
    begins = _READS.match(text)
    if begins is None:
        return Effect.WRITES
    if begins[1] and not _ANOTHER.search(text):
        if not _EXECUTES.search(text):
            return Effect.READS
        if _EXECUTED.search(text):
            return Effect.WRITES
    return _effect_of_clause(text)


def _effect_of_clause(text: str) -> Effect:
    unlocked = _LOCKS.sub(' ', text)
    if _WRITES.search(unlocked) or _ANOTHER.search(unlocked):
        return Effect.WRITES
    return Effect.READS if unlocked == text else Effect.LOCKS


def ends_transaction(
    statement: sa.Executable | str, dialect: sa.Dialect
) -> bool:
    """Return whether a statement ends the transaction that it is sent in.

    :param statement: an executable of SQLAlchemy, or SQL
    :param dialect: the dialect of the database; some databases commit before
        DDL
    """
    if not isinstance(statement, IN_SQL):
        return False
    if isinstance(statement, sa.TextClause):
        sql = statement.text
    else:
        sql = str(statement)
    if isinstance(statement, sa.schema.ExecutableDDLElement):
        sql = str(statement.compile(dialect=dialect))
    text = _CONTENTS.sub(' ', sql)
    commits_ddl = ABILITIES[backend_of(dialect)].commits_ddl
    return bool(_ENDS.search(text) or (commits_ddl and _COMMITS.search(text)))
