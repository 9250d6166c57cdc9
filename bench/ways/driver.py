"""The bare drivers: statements written by hand, in the fewest round trips.

Rows are tuples, whose values have the same types as in the layer.
"""

import contextlib
import datetime
import sqlite3
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import ClassVar

import psycopg
import pymysql
import sqlalchemy as sa

from myservice.db.engine import engines
from myservice.db.operation import new_id
from myservice.db.sql import dialects
from ways import base
from ways import captured

# The parts in braces differ between servers.
_COLUMNS = {
    # A name behind a dot need not be quoted on any server.
    'service': 't.id, t.host, t.binary, t.topic, t.availability_zone, '
    't.version, t.disabled, t.disabled_reason, t.forced_down, '
    't.last_seen_at, t.registration, t.unregistered_at, {times}, '
    '(t.forced_down = false AND t.unregistered_at IS NULL AND '
    'coalesce(t.last_seen_at, t.created_at) >= {ago}) AS is_up',
    'resource': 't.id, t.project_id, t.name, t.kind, t.size, t.status, '
    't.service_id, t.generation, t.claim_generation, t.operation, {times}',
    'times': 't.created_at, t.updated_at, t.deleted_at, t.deleted',
}
_TEXTS = {
    'service_get': 'SELECT {service} FROM services AS t '
    "WHERE t.id = %s AND t.deleted = ''",
    'service_heartbeat': 'UPDATE services SET last_seen_at = {now} '
    "WHERE id = %s AND deleted = ''",
    'service_create': 'INSERT INTO services (id, host, {binary}, version, '
    'disabled, forced_down, created_at, deleted) '
    "VALUES (%s, %s, %s, 0, false, false, {now}, '') RETURNING {returned}",
    'service_destroy': 'UPDATE services SET deleted = %s, deleted_at = {now} '
    "WHERE id = %s AND deleted = '' AND NOT EXISTS (SELECT 1 FROM resources "
    "WHERE service_id = %s AND deleted = '')",
    'service_get_all': 'SELECT {service} FROM services AS t '
    "{by_service} WHERE t.deleted = '' ORDER BY t.id",
    'service_page_after': 'SELECT {service} FROM services AS t '
    "{by_service} WHERE t.deleted = '' AND t.id > %s ORDER BY t.id LIMIT %s",
    'resource_get': 'SELECT {resource} FROM resources AS t '
    "WHERE t.id = %s AND t.deleted = ''",
    'metadata': 'SELECT m.key, m.value FROM resource_metadata AS m '
    'WHERE m.resource_id = %s',
    'tags': 'SELECT tag FROM resource_tags WHERE resource_id = %s '
    'ORDER BY tag',
    'resource_get_all': 'SELECT {resource} FROM resources AS t '
    "{by_resource} WHERE t.deleted = '' ORDER BY t.id",
    'resource_update': 'UPDATE resources SET status = %s, '
    'generation = generation + 1, operation = %s, updated_at = {now} '
    "WHERE id = %s AND deleted = '' AND status = %s",
    'resource_claim': '{claim}',
    'resource_release': 'UPDATE resources SET service_id = NULL, '
    'claim_generation = NULL, generation = generation + 1, operation = %s, '
    "updated_at = {now} WHERE deleted = '' AND id = %s AND service_id = %s "
    'AND claim_generation = %s',
}
_PAGES = {
    f'{name}, a page': f'{_TEXTS[name]} LIMIT %s'
    for name in ('service_get_all', 'resource_get_all')
}


class Driver:
    """The shared code of the drivers."""

    name = 'driver'
    fragments: ClassVar[Mapping[str, str]]
    marker: ClassVar[str] = '%s'

    def __init__(self, url: str) -> None:
        self._connection: Any = self.connect(sa.make_url(url))
        # INSERT takes no other name for its table.
        returned = _COLUMNS['service'].replace('{times}', _COLUMNS['times'])
        fragments = {
            **_COLUMNS,
            **self.fragments,
            'returned': returned.replace('t.', 'services.'),
        }
        self._texts = {
            name: _expand(text, fragments).replace('%s', self.marker)
            for name, text in (_TEXTS | _PAGES).items()
        }
        self._open = contextlib.ExitStack()
        self._open.callback(self._connection.close)
        self._pair: Callable[[], None] | None = None

    @staticmethod
    def connect(url: sa.URL) -> Any:
        """Connect, in autocommit."""
        raise NotImplementedError

    @staticmethod
    def service(row: Any) -> Any:
        """Decode what the driver has not decoded."""
        return row

    @staticmethod
    def resource(row: Any) -> Any:
        """Decode what the driver has not decoded."""
        return row

    def close(self) -> None:
        self._open.close()

    def _execute(self, name: str, *values: Any) -> Any:
        # A new cursor each time, as in the documentation of each driver.
        cursor = self._connection.cursor()
        cursor.execute(self._texts[name], values)
        return cursor

    def _write(self, name: str, *values: Any) -> None:
        base.expect_one(self._execute(name, *values).rowcount)

    def service_get(self, service_id: str) -> Any:
        return self.service(
            self._execute('service_get', service_id).fetchone()
        )

    def service_heartbeat(self, service_id: str) -> None:
        self._write('service_heartbeat', service_id)

    def service_create(self, host: str) -> str:
        cursor = self._execute('service_create', new_id(), host, 'agent')
        made: str = self.service(cursor.fetchone())[0]
        return made

    def service_destroy(self, service_id: str) -> None:
        self._write('service_destroy', new_id(), service_id, service_id)

    def service_get_all(self, limit: int | None) -> list[Any]:
        return [*map(self.service, self._list('service_get_all', limit))]

    def service_page_after(self, marker: str, limit: int) -> list[Any]:
        """Return services after one of them, by id."""
        cursor = self._execute('service_page_after', marker, limit)
        return [*map(self.service, cursor.fetchall())]

    def _list(self, name: str, limit: int | None) -> Any:
        if limit is None:
            return self._execute(name).fetchall()
        return self._execute(f'{name}, a page', limit).fetchall()

    def resource_get(self, resource_id: str) -> Any:
        return self.resource(
            self._execute('resource_get', resource_id).fetchone()
        )

    def resource_details(
        self, resource_id: str
    ) -> tuple[Any, dict[str, str], list[str]]:
        row = self.resource_get(resource_id)
        pairs = self._execute('metadata', resource_id).fetchall()
        words = self._execute('tags', resource_id).fetchall()
        return row, dict(pairs), [tag for (tag,) in words]

    def resource_get_all(self, limit: int | None) -> list[Any]:
        return [*map(self.resource, self._list('resource_get_all', limit))]

    def resource_update(
        self, resource_id: str, expected: str, status: str
    ) -> None:
        self._write('resource_update', status, new_id(), resource_id, expected)

    def resource_claim(self, resource_id: str, service_id: str) -> Any:
        cursor = self._execute(
            'resource_claim', service_id, new_id(), resource_id
        )
        return base.Claim(resource_id, service_id, self.claimed(cursor))

    @staticmethod
    def claimed(cursor: Any) -> int:
        """Return the generation of the resource that was claimed."""
        ((generation,),) = cursor.fetchall()
        return int(generation)

    def resource_release(self, claim: Any) -> None:
        self._write('resource_release', new_id(), *claim)

    def quota_pair(self) -> None:
        if self._pair is None:
            # The statements of the layer, which has to use this database.
            bind = engines.get_engines().get_engine('transaction')
            worker = captured.Captured(bind).worker()
            self._pair = self._open.enter_context(worker)
        self._pair()


def _expand(text: str, fragments: Mapping[str, str]) -> str:
    while '{' in text:
        text = text.format_map(fragments)
    return text


class MariaDB(Driver):
    """PyMySQL."""

    fragments = {
        'binary': '`binary`',
        'now': 'UTC_TIMESTAMP(6)',
        'ago': f'(UTC_TIMESTAMP(6) - INTERVAL {base.DOWN_TIME} SECOND)',
        # Without the hint the server sorts all rows; the layer has it, too.
        'by_service': 'FORCE INDEX (ix_services_id)',
        'by_resource': 'FORCE INDEX (ix_resources_id)',
        # A join locks the service, where a subquery would only read it.
        'claim': 'UPDATE resources AS r JOIN services AS s ON s.id = %s '
        "AND s.deleted = '' SET r.service_id = s.id, "
        'r.claim_generation = r.generation + 1, '
        'r.generation = last_insert_id(r.generation + 1), '
        'r.operation = %s, r.updated_at = {now} '
        "WHERE r.id = %s AND r.service_id IS NULL AND r.deleted = ''",
    }

    @staticmethod
    def connect(url: sa.URL) -> Any:
        return pymysql.connect(
            host=url.host,
            port=url.port or 0,
            user=url.username,
            database=url.database,
            charset='utf8mb4',
            autocommit=True,
            ssl_disabled=url.query.get('ssl_disabled') == 'true',
        )

    @staticmethod
    def service(row: Any) -> Any:
        return (
            *row[:6],
            bool(row[6]),
            row[7],
            bool(row[8]),
            *row[9:16],
            bool(row[16]),
        )

    @staticmethod
    def claimed(cursor: Any) -> int:
        base.expect_one(cursor.rowcount)
        return int(cursor.lastrowid)


class PostgreSQL(Driver):
    """psycopg."""

    fragments = {
        'binary': '"binary"',
        'now': "(statement_timestamp() AT TIME ZONE 'UTC')",
        'ago': "((statement_timestamp() AT TIME ZONE 'UTC') - "
        f"INTERVAL '{base.DOWN_TIME} seconds')",
        'by_service': '',
        'by_resource': '',
        'claim': 'WITH s AS (SELECT id FROM services WHERE id = %s '
        "AND deleted = '' FOR KEY SHARE) "
        'UPDATE resources AS r SET service_id = s.id, '
        'claim_generation = r.generation + 1, '
        'generation = r.generation + 1, operation = %s, updated_at = {now} '
        'FROM s WHERE r.id = %s AND r.service_id IS NULL '
        "AND r.deleted = '' RETURNING r.generation",
    }

    @staticmethod
    def connect(url: sa.URL) -> Any:
        return psycopg.connect(
            host=url.host,
            port=url.port,
            user=url.username,
            dbname=url.database,
            autocommit=True,
        )


class SQLite(Driver):
    """sqlite3, with the default durability of SQLite."""

    marker = '?'
    fragments = {
        'binary': '"binary"',
        'now': "strftime('%Y-%m-%d %H:%M:%f000', 'now')",
        'ago': "strftime('%Y-%m-%d %H:%M:%f000', 'now', "
        f"'-{base.DOWN_TIME} seconds')",
        'by_service': '',
        'by_resource': '',
        'claim': 'WITH s AS (SELECT id FROM services WHERE id = %s '
        "AND deleted = '') UPDATE resources AS r SET service_id = s.id, "
        'claim_generation = r.generation + 1, '
        'generation = r.generation + 1, operation = %s, updated_at = {now} '
        'FROM s WHERE r.id = %s AND r.service_id IS NULL '
        "AND r.deleted = '' RETURNING generation",
    }

    @staticmethod
    def connect(url: sa.URL) -> Any:
        connection = sqlite3.connect(str(url.database), isolation_level=None)
        connection.execute('PRAGMA synchronous = FULL')
        connection.execute('PRAGMA foreign_keys = ON')
        return connection

    @staticmethod
    def service(row: Any) -> Any:
        return (
            *row[:6],
            bool(row[6]),
            row[7],
            bool(row[8]),
            _time(row[9]),
            row[10],
            *map(_time, row[11:15]),
            row[15],
            bool(row[16]),
        )

    @staticmethod
    def resource(row: Any) -> Any:
        return (*row[:10], *map(_time, row[10:13]), row[13])


def _time(text: str | None) -> datetime.datetime | None:
    return None if text is None else datetime.datetime.fromisoformat(text)


#: name of the dialect to its driver
DRIVERS: dict[str, type[Driver]] = {
    'mysql': MariaDB,
    'postgresql': PostgreSQL,
    'sqlite': SQLite,
}


def make(url: str) -> Driver:
    """Return the way by the driver of a database."""
    return DRIVERS[dialects.backend_of(sa.make_url(url))](url)
