"""Values of a subclass: sent as what they are, or refused by their field."""

import contextlib
import datetime
import decimal
import enum
import importlib
import inspect
import zoneinfo
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from myservice import context
from myservice import db
from myservice import exception
from myservice import plain
from myservice.db import models
from myservice.tests import base
from myservice.tests import calls
from myservice.tests import factories

# What drivers know by its type.
SENT = {
    bool,
    datetime.datetime,
    decimal.Decimal,
    float,
    int,
    str,
    type(None),
}


CONDITIONS = (db.api.Contains, db.api.Not, db.api.Range, db.api.StartsWith)


class Index:
    """A whole number like those of numpy, which are no subclass of int."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


class Real(float):
    pass


class Moment(datetime.datetime):
    pass


class Duration(datetime.timedelta):
    pass


class Dict(dict[Any, Any]):
    pass


class List(list[Any]):
    pass


def member(value: Any) -> Any:
    """Return a member of an Enum, which prints as its name."""
    kind = type(value)
    return enum.Enum('State', {'MEMBER': value}, type=kind)['MEMBER']


DISGUISES: dict[type, Callable[[Any], Any]] = {
    str: member,
    float: Real,
    datetime.datetime: lambda value: Moment(*value.timetuple()[:6]),
}


def _opened(value: Any) -> tuple[dict[Any, Any], Callable[[Any], Any]]:
    """Return the parts of a value by their place, and what puts them back."""
    kind = type(value)
    if kind is dict:
        return value, Dict
    if kind in (list, tuple):
        made = List if kind is list else tuple
        return dict(enumerate(value)), lambda parts: made(parts.values())
    if kind is db.api.Claim:
        return value._asdict(), lambda parts: kind(**parts)
    if kind in CONDITIONS:
        return vars(value), lambda parts: kind(**parts)
    return {}, lambda _: value


def disguised(value: Any, whole: Callable[[int], Any] = member) -> Any:
    """Return a value with each part of it in a subclass."""
    if type(value) in DISGUISES:
        return DISGUISES[type(value)](value)
    if type(value) is int:
        return whole(value)
    inside, put_back = _opened(value)
    is_dict = type(value) is dict
    return put_back(
        {
            member(place) if is_dict else place: disguised(each, whole)
            for place, each in inside.items()
        }
    )


def parts(value: Any) -> Iterator[tuple[Any, Callable[[Any], Any]]]:
    """Return the parts of a value, and what returns it with another part."""
    yield value, lambda new: new
    inside, put_back = _opened(value)
    for place, each in inside.items():
        for part, change in parts(each):
            yield (
                part,
                lambda new, place=place, change=change: put_back(
                    {**inside, place: change(new)}
                ),
            )


def _filters(name: str, world: calls.World) -> dict[str, Any]:
    if name.startswith('quota_class'):
        return {'resource': ['x', 'resources']}
    if name.startswith('quota'):
        return {'resource': 'resources'}
    if name.startswith('service'):
        return {
            'host': [f'h{each}' for each in range(10)],
            'binary': 'b',
            'disabled': False,
        }
    return {
        'id': db.api.Not('x'),
        'size': db.api.Range(0, 5),
        'name': db.api.Contains('x'),
        'kind': db.api.StartsWith('x'),
        'status': ['requested', 'x'],
        'generation': 0,
        'created_at': db.api.Range(datetime.datetime(2000, 1, 1), None),
        'metadata': {'old': 'value'},
        'tags': ['old'],
        'tags-any': ['old', 'x'],
        'not-tags': ['old', 'x'],
        'not-tags-any': [f't{each}' for each in range(10)],
        'is_claimed': False,
    }


def _marker(name: str, world: calls.World) -> str:
    if name == 'quota_usage_get_projects':
        return 'a'
    if name.startswith('service'):
        return world.service.id
    if name.startswith('resource'):
        return world.resource.id
    admin = context.get_admin_context()
    if name.startswith('quota_class'):
        return db.api.quota_class_get_all(admin)[0].id
    return db.api.quota_get_all(admin)[0].id


# Those that calls.py does not need, as they have a default.
OPTIONAL: dict[str, Callable[[str, calls.World], Any]] = {
    'filters': _filters,
    'limit': lambda name, world: 2,
    'marker': _marker,
    'sort_keys': lambda name, world: ['created_at', 'id'],
    'sort_dirs': lambda name, world: ['asc', 'desc'],
    'registration': lambda name, world: world.service.registration,
    'only_if_silent_for': lambda name, world: 2.5,
    'expire': lambda name, world: 60.5,
    'expected': lambda name, world: {
        'size': [1, 7],
        'name': None,
        'generation': db.api.Range(0, 5),
    },
    'claim': lambda name, world: (
        None if name == 'resource_destroy' else world.claim
    ),
    'force': lambda name, world: True,
    'batch_size': lambda name, world: 10,
    'group_by': lambda name, world: (
        'binary' if name.startswith('service') else 'kind'
    ),
}


def arguments(name: str, world: calls.World) -> dict[str, Any]:
    """Return every argument of a call but the context, by its name."""
    made = {}
    for each in inspect.signature(getattr(db.api, name)).parameters.values():
        if each.name == 'context':
            continue
        is_optional = each.default is not each.empty
        makes = OPTIONAL if is_optional else calls.ARGUMENTS
        if each.name not in makes:
            makes = calls.ARGUMENTS
        made[each.name] = makes[each.name](name, world)
    if made.get('claim') is not None and 'resource_id' in made:
        # What the claim is on.
        made['resource_id'] = world.claim.resource_id
    return made


def checked() -> list[str]:
    """Return the functions whose arguments are checked."""
    # What that one is given goes to a function of the caller's.
    return [name for name in calls.names() if name != 'run_in_transaction']


class TestEveryArgument(base.DatabaseTestCase):
    """By its signature, so that a new one without a check fails."""

    def world(self, name: str) -> tuple[Callable[..., Any], dict[str, Any]]:
        """Return a function, with a context, and its arguments."""
        with self.database.engine().begin() as connection:
            for table in reversed(models.Base.metadata.sorted_tables):
                connection.execute(sa.delete(table))
        made = calls.World()
        caller = context.RequestContext(
            project_id=member(made.project_id), is_admin=True, overwrite=False
        )
        function = getattr(db.api, name)
        return (
            lambda **values: function(caller, **values),
            arguments(name, made),
        )

    def setUp(self) -> None:
        super().setUp()
        self.database.conf.set_override(
            'default_limits', {'resources': -1, 'gigabytes': -1}, 'quota'
        )

    @contextlib.contextmanager
    def sent(self) -> Iterator[list[Any]]:
        """Collect each value that goes to the driver."""
        found: list[Any] = []

        def take(value: Any) -> None:
            if isinstance(value, dict):
                value = value.values()
            elif not isinstance(value, list | tuple):
                found.append(value)
                return
            for each in value:
                take(each)

        def note(*call: Any) -> None:
            take(call[3])

        event.listen(sa.Engine, 'before_cursor_execute', note)
        db.api.dispose()
        try:
            yield found
        finally:
            event.remove(sa.Engine, 'before_cursor_execute', note)
            db.api.dispose()

    def test_a_value_of_a_subclass_is_sent_as_what_it_is(self) -> None:
        for name in checked():
            for whole in (member, Index):
                call, values = self.world(name)
                with self.sent() as sent:
                    call(**disguised(values, whole))
                self.assertEqual(set(), {*map(type, sent)} - SENT, name)
                self.assertNotEqual([], sent, name)

    def test_what_is_of_another_type_is_refused_before_any_sql(self) -> None:
        for name in checked():
            call, values = self.world(name)
            with self.sent() as sent:
                for argument, value in values.items():
                    for wrong in self.wrong(value):
                        try:
                            call(**{**values, argument: wrong})
                        except exception.InvalidInput as error:
                            self.assertTrue(len(str(error)) < 500)
                        else:
                            self.fail(f'{name}: {argument}={wrong!r:.200}')
                self.assertEqual([], sent, name)

    def wrong(self, value: Any) -> Iterator[Any]:
        """Return a value with each part of it replaced by what it is not."""
        for part, change in parts(value):
            yield change(object())
            if type(part) in (int, str, float):
                yield from map(change, (True, decimal.Decimal(1), b'x'))
            if type(part) in (int, float):
                yield from map(change, ('1', 10**5000, -(10**5000)))
            if type(part) is int:
                yield change(1.0)
            if type(part) is str:
                yield from map(change, (1, 'x\0', '\ud800'))
            if type(part) is bool:
                yield from map(change, (1, 0, 'yes'))

    def test_a_counter_of_the_caller(self) -> None:
        statement = sa.select(sa.literal(7)).where(
            db.api.PROJECT == db.api.PROJECT
        )
        db.api.quota_counter_register(
            member('wheels'),
            statement,
            Index(5),
        )
        found = db.api.quota_get_defaults(self.context)['wheels']
        self.assertEqual((int, 5), (type(found), found))
        self.assertRaises(
            exception.InvalidInput,
            db.api.quota_counter_register,
            'wheels',
            statement,
            True,
        )

    def test_what_is_read_back_is_what_was_meant(self) -> None:
        made = factories.create_service(
            host=member('h1'), version=member(7), topic=member('t1')
        )
        found = db.api.service_get(self.context, member(made.id))
        self.assertEqual(
            ('h1', 7, 't1'), (found.host, found.version, found.topic)
        )

    def test_a_project_of_a_context(self) -> None:
        mine = context.RequestContext(project_id=member('p1'), overwrite=False)
        made = db.api.resource_create(mine, {'name': 'x'})
        with self.sent() as sent:
            db.api.resource_get(mine, made.id)
            db.api.resource_get_all(mine, marker=made.id)
            db.api.resource_update(mine, made.id, {'name': 'y'})
            db.api.resource_tags_get(mine, made.id)
        self.assertEqual(set(), {*map(type, sent)} - SENT)
        self.assertIn('p1', sent)


class TestExpiry(base.DatabaseTestCase):
    def reserve(self, expire: Any) -> Any:
        return db.api.quota_reserve(
            self.context, {'gigabytes': 1}, 'p', expire=expire
        )

    def test_what_is_too_far_away_is_refused(self) -> None:
        berlin = zoneinfo.ZoneInfo('Europe/Berlin')
        far = datetime.timezone(datetime.timedelta(hours=-23))
        for expire in (
            datetime.datetime.max,
            datetime.datetime.max.replace(tzinfo=datetime.UTC),
            datetime.datetime.max.replace(tzinfo=berlin),
            datetime.datetime.max.replace(tzinfo=far),
            datetime.datetime.min,
            datetime.datetime.min.replace(tzinfo=far),
            datetime.timedelta.max,
            datetime.timedelta.min,
            1e300,
            -1e300,
            10**400,
            float('inf'),
            float('-inf'),
            float('nan'),
            decimal.Decimal(60),
            datetime.date(2040, 1, 1),
        ):
            error = self.assertRaises(
                exception.InvalidInput, self.reserve, expire
            )
            self.assertEqual('expire', error.field)

    def test_what_is_near_enough_is_stored(self) -> None:
        now = datetime.datetime.now(datetime.UTC)
        year = datetime.timedelta(days=365)
        for expire in (
            99 * year,
            now + 99 * year,
            Moment(2040, 1, 1),
            Index(60),
            Real(60),
            Duration(days=1),
        ):
            self.assertEqual(1, len(self.reserve(expire)))


class TestPlain(base.TestCase):
    def test_types_of_numpy(self) -> None:
        try:
            numpy: Any = importlib.import_module('numpy')
        except ImportError:
            self.skipTest('numpy is not installed')
        for value, expected in (
            (numpy.int64(7), 7),
            (numpy.uint8(7), 7),
            (numpy.float64(1.5), 1.5),
            (numpy.str_('x'), 'x'),
        ):
            found = plain.plain(value)
            self.assertEqual((type(expected), expected), (type(found), found))
        for value in (numpy.bool_(True), numpy.array([1, 2])):
            self.assertIs(value, plain.plain(value))

    def test_a_list_that_is_in_itself_is_refused(self) -> None:
        loop: list[Any] = [object()]
        loop.append(loop)
        self.assertRaises(
            exception.InvalidInput,
            db.api.resource_tags_get_many,
            context.get_admin_context(),
            loop,
        )

    def test_a_time_that_is_none_is_left_to_those_who_check(self) -> None:
        class NaT(datetime.datetime):
            year = property(lambda self: float('nan'))

        none = NaT(2020, 1, 1)
        self.assertIs(none, plain.plain(none))
