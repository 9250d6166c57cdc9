"""Which statements write, and which end the transaction."""

import functools
import re
from typing import Any

import sqlalchemy as sa

from myservice import exception
from myservice.db.dialects import backend_of

# What says what it does in SQL only.
IN_SQL = (sa.TextClause, sa.schema.ExecutableDDLElement, str)

_QUOTED = re.compile(r"'[^']*'")
_READS = re.compile(r'[\s(]*(select|values|show|desc|describe|with)\b', re.I)
_WRITES = re.compile(
    r'\b(insert|(?<!for )update|delete|merge|into)\b|;\s*\S', re.I
)

# What says nothing of what a statement does: text, names, comments, bodies of
# PostgreSQL's functions. MariaDB executes /*! such comments */.
_CONTENTS = re.compile(
    r"""'[^']*'|"[^"]*"|`[^`]*`|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*(?!!).*?\*/""",
    re.S,
)
_ENDS = re.compile(
    r'(?:\A|;)[\s(]*(?:commit|rollback)\b'
    r'(?!\s+(?:work\s+|transaction\s+)?to\b)'
    r'|\A[\s(]*(?:begin|start\s+transaction|end|abort|prepare\s+transaction|xa'
    r'|set\s+(?:(?:session|local)\s+|@@(?:session\.|local\.)?)?autocommit)\b',
    re.I,
)
# MariaDB commits before and after these, without a word.
_COMMITS = re.compile(
    r'\A\s*(?:alter|(?:create|drop)(?!(?:\s+or\s+replace)?\s+temporary)'
    r'|rename|truncate|grant|revoke|(?:un)?lock\s+tables?'
    r'|(?:analyze|check|optimize|repair)\s+(?:\w+\s+)?tables?'
    r'|flush|cache\s+index|load\s+index|reset|set\s+password)\b',
    re.I,
)


@functools.lru_cache(maxsize=1000)
def writes(statement: Any) -> bool:
    """Return whether a statement may write.

    :param statement: an executable of SQLAlchemy; of a text that is not
        surely a read, it is taken to write
    """
    if isinstance(statement, sa.TextClause):
        text = _QUOTED.sub("''", statement.text)
        return not _READS.match(text) or bool(_WRITES.search(text))
    if not getattr(statement, 'is_select', False):
        return True
    # PostgreSQL lets a CTE of a SELECT write.
    parts = sa.sql.visitors.iterate(statement)
    return any(getattr(part, 'is_dml', False) for part in parts)


def refuse_write(statement: Any) -> None:
    """Refuse a statement in a session that only reads.

    :param statement: an executable of SQLAlchemy
    :raises WriteInReadOnly: when it may write
    """
    if writes(statement):
        raise exception.WriteInReadOnly(statement=str(statement))


def ends_transaction(statement: Any, dialect: sa.Dialect) -> bool:
    """Return whether a statement ends the transaction that it is sent in.

    :param statement: an executable of SQLAlchemy, or SQL
    :param dialect: that of the database, some of which commit before DDL
    """
    if not isinstance(statement, IN_SQL):
        return False
    if isinstance(statement, sa.TextClause):
        sql = statement.text
    else:
        sql = str(statement)
    if isinstance(statement, sa.schema.ExecutableDDLElement):
        sql = str(statement.compile(dialect=dialect))
    return _ends_transaction(sql, backend_of(dialect) == 'mysql')


@functools.lru_cache(maxsize=1000)
def _ends_transaction(sql: str, commits_ddl: bool) -> bool:
    text = _CONTENTS.sub(' ', sql)
    return bool(_ENDS.search(text) or (commits_ddl and _COMMITS.search(text)))
