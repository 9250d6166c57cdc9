"""Which statements write."""

import functools
import re
from typing import Any

import sqlalchemy as sa

from myservice import exception

_QUOTED = re.compile(r"'[^']*'")
_READS = re.compile(r'[\s(]*(select|values|show|desc|describe|with)\b', re.I)
_WRITES = re.compile(
    r'\b(insert|(?<!for )update|delete|merge|into)\b|;\s*\S', re.I
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
