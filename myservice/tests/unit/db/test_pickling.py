"""What queues of tasks carry: errors, contexts, rows and claims."""

import copy
import inspect
import multiprocessing
import pickle
import threading
from collections.abc import Callable
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import sqlalchemy as sa
from oslo_context import context as oslo_context
from oslo_context import fixture as oslo_fixture
from oslo_db import exception as db_exception

from myservice import context
from myservice import db
from myservice import exception
from myservice.db import models
from myservice.db.engine import errors
from myservice.tests import base
from myservice.tests import calls
from myservice.tests import factories

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def pickled(value: Any) -> Iterator[Any]:
    """Return what comes out of each protocol of pickle."""
    for protocol in PROTOCOLS:
        yield pickle.loads(pickle.dumps(value, protocol))


def twins(value: Any) -> Iterator[Any]:
    """Return what comes out of pickle and copy."""
    yield from pickled(value)
    yield copy.copy(value)
    yield copy.deepcopy(value)


class Positional(exception.NotFound):
    """As users write them: with an __init__ of their own."""

    message = 'There is no {host}.'

    def __init__(self, host: str, *, extra: int) -> None:
        super().__init__(host=host)
        self.extra = extra


class Both(exception.MyServiceError, KeyError):
    """Of ours and of Python's."""


class Unlucky(Exception):
    """Can be pickled, and not be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f'{one} and {two}')


class Unprintable:
    """Can neither be pickled nor be shown."""

    def __reduce__(self) -> Any:
        raise TypeError('no pickle')

    def __repr__(self) -> str:
        raise ValueError('no text')


def each_kind(module: Any) -> list[type[Exception]]:
    return [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception)
    ]


def an_error(kind: type[Exception]) -> Exception:
    """Return an exception of a class, with something for all that it takes."""
    if issubclass(kind, exception.MyServiceError):
        declared = {
            field
            for parent in kind.__mro__
            for field in getattr(parent, '__annotations__', {})
        } - {'message'}
        return kind(**{field: [field, 1] for field in declared})
    if not inspect.isfunction(kind.__init__):
        return kind('text', 5)
    parameters = inspect.signature(kind).parameters.values()
    values: dict[str, Any] = {
        'inner_exception': sa.exc.IntegrityError('SQL', {}, ValueError('5')),
        'inner_exc': ValueError('inner'),
        'cause': ValueError('cause'),
        'columns': ['a', 'b'],
    }
    return kind(
        **{
            each.name: values.get(each.name, each.name)
            for each in parameters
            if each.kind is each.POSITIONAL_OR_KEYWORD
        }
    )


class PicklingTestCase(base.TestCase):
    def assert_same(self, one: BaseException, other: Any) -> None:
        self.assertIs(type(one), type(other))
        self.assertEqual(str(one), str(other))
        self.assertEqual(repr(one), repr(other))
        self.assertEqual(vars(one).keys(), vars(other).keys())
        for name, value in vars(one).items():
            if isinstance(value, BaseException):
                self.assert_same(value, getattr(other, name))
            else:
                self.assertEqual(value, getattr(other, name), name)


class TestEachError(PicklingTestCase):
    def test_each_of_ours(self) -> None:
        for kind in each_kind(exception):
            for twin in twins(an_error(kind)):
                self.assert_same(an_error(kind), twin)

    def test_each_of_oslo_db(self) -> None:
        kinds = each_kind(db_exception)
        self.assertIn(db_exception.DBReferenceError, kinds)
        for kind in kinds:
            for twin in twins(an_error(kind)):
                self.assert_same(an_error(kind), twin)

    def test_each_that_derives_from_one_of_oslo_db(self) -> None:
        kinds = [db_exception.DBError]
        for kind in kinds:
            kinds += kind.__subclasses__()
            if kind.__module__.startswith(('oslo_db.', 'myservice.db')):
                for twin in twins(an_error(kind)):
                    self.assert_same(an_error(kind), twin)


class TestErrors(PicklingTestCase):
    def test_notes_and_what_was_added_are_kept(self) -> None:
        for error in (
            exception.ServiceNotFound(service_id='s'),
            db_exception.DBDuplicateEntry(['a'], ValueError('5'), 'v'),
        ):
            error.add_note('The outcome is unknown.')
            vars(error)['added'] = 5
            for twin in twins(error):
                self.assertEqual(['The outcome is unknown.'], twin.__notes__)
                self.assertEqual(5, twin.added)

    def test_those_of_users(self) -> None:
        for error in (
            Positional('h', extra=7),
            Both(a=1),
            exception.MyServiceError(),
            exception.InvalidInput(field=None, reason={'a': [1]}),
        ):
            for twin in twins(error):
                self.assert_same(error, twin)

    def test_what_cannot_be_pickled_is_taken_as_text(self) -> None:
        lock = threading.Lock()
        error = exception.InvalidInput(field='lock', reason=lock)
        for twin in pickled(error):
            self.assertEqual(str(error), str(twin))
            self.assertEqual('lock', twin.field)
            self.assertIn(repr(lock), twin.reason)
        for twin in (copy.copy(error), copy.deepcopy(error)):
            self.assertIs(lock, twin.reason)

    def test_what_cannot_be_shown_either(self) -> None:
        error = exception.MyServiceError(value=Unprintable())
        for twin in pickled(error):
            self.assertIn('Unprintable', twin.value)

    def test_what_cannot_be_unpickled_is_taken_as_text(self) -> None:
        error = exception.MyServiceError(value=Unlucky('one', 'two'))
        for twin in pickled(error):
            self.assertIsInstance(twin.value, Exception)
            self.assertIn('Unlucky: one and two', str(twin.value))

    def test_an_error_of_a_driver_that_cannot_be_pickled(self) -> None:
        driver = ValueError(5, 'no')
        vars(driver)['connection'] = threading.Lock()
        for params in ({'a': threading.Lock()}, {'a': 1}):
            inner = sa.exc.IntegrityError('SQL', params, driver)
            error = db_exception.DBReferenceError(
                't', 'c', 'k', 'kt', inner_exception=inner
            )
            for twin in pickled(error):
                self.assertEqual(str(error), str(twin))
                self.assertEqual(
                    ('t', 'c', 'k', 'kt'),
                    (
                        twin.table,
                        twin.constraint,
                        twin.key,
                        twin.key_table,
                    ),
                )
                self.assertIn(str(inner), str(twin.inner_exception))
            for twin in (copy.copy(error), copy.deepcopy(error)):
                self.assertIs(inner, twin.inner_exception)

    def test_errors_in_errors(self) -> None:
        error: Exception = ValueError('inmost')
        for _ in range(4):
            error = db_exception.DBError(error)
        for twin in twins(error):
            self.assert_same(error, twin)

    def test_errors_that_have_themselves_in_them(self) -> None:
        error = exception.MyServiceError(a=1)
        vars(error)['itself'] = [error]
        vars(error)['again'] = {'error': error}
        for twin in twins(error):
            self.assertEqual((1, str(error)), (twin.a, str(twin)))

    def test_a_group_of_them(self) -> None:
        group = ExceptionGroup(
            'several', [an_error(kind) for kind in each_kind(db_exception)]
        )
        for twin in pickled(group):
            for one, other in zip(
                group.exceptions, twin.exceptions, strict=True
            ):
                self.assert_same(one, other)


def _fail(number: int) -> None:
    raise (
        db_exception.DBReferenceError(
            't', 'c', 'k', 'kt', inner_exception=ValueError(number)
        ),
        exception.ServiceExists(host='h', binary='b'),
    )[number]


class TestProcesses(PicklingTestCase):
    def test_errors_come_out_of_another_process(self) -> None:
        for method in ('fork', 'spawn'):
            with futures.ProcessPoolExecutor(
                1, multiprocessing.get_context(method)
            ) as pool:
                for number, (kind, text) in enumerate(
                    (
                        (db_exception.DBReferenceError, '0'),
                        (exception.ServiceExists, 'A service b on host h'),
                    )
                ):
                    error = self.assertRaises(
                        kind, pool.submit(_fail, number).result, 60
                    )
                    self.assertIn(text, str(error))


class TestRaised(base.DatabaseTestCase):
    """Errors as the layer raises them, on each database."""

    def errors(self) -> Iterator[Exception]:
        service = factories.create_service(host='h', binary='b')
        resource = db.api.resource_create(self.context, {'project_id': 'p'})
        table = models.Resource.__table__
        for statement in (
            # a duplicate, a foreign key, no such table, nonsense
            sa.insert(table).values(
                id=resource.id, project_id='p', generation=0
            ),
            sa.insert(models.ResourceTag.__table__).values(
                resource_id='nobody', tag='t'
            ),
            sa.text('SELECT 1 FROM nowhere'),
            sa.text('NONSENSE'),
        ):
            yield self.failure(self.execute, statement)
        yield self.failure(factories.create_service, host='h', binary='b')
        yield self.failure(
            db.api.resource_update,
            self.context,
            resource.id,
            {'name': 'x'},
            expected={'name': db.api.Not(None)},
        )
        yield self.failure(
            db.api.quota_reserve,
            self.context,
            {'resources': 1000},
            'p',
        )
        yield self.failure(
            db.api.resource_claim, self.context, resource.id, 'nobody'
        )
        yield self.failure(db.api.service_get, self.context, 'nobody')
        yield self.failure(
            db.api.service_update, self.context, service.id, {'no': 1}
        )

    def execute(self, statement: Any) -> None:
        session = db.api.get_session(self.context)
        with session.begin():
            session.execute(statement)

    def failure(
        self, function: Callable[..., Any], *args: Any, **kw: Any
    ) -> Exception:
        try:
            function(*args, **kw)
        except Exception as error:
            return error
        self.fail('it did not raise')

    def test_each_survives(self) -> None:
        kinds = set()
        for error in self.errors():
            kinds.add(type(error).__name__)
            for twin in twins(error):
                self.assertIs(type(error), type(twin))
                self.assertEqual(str(error), str(twin))
                self.assertEqual(vars(error).keys(), vars(twin).keys())
                inner = getattr(error, 'inner_exception', None)
                if inner is not None:
                    self.assertIs(type(inner), type(twin.inner_exception))
                    self.assertEqual(
                        inner.orig.args, twin.inner_exception.orig.args
                    )
                    self.assertEqual(
                        errors.first_line(inner),
                        errors.first_line(twin.inner_exception),
                    )
        self.assertIn('DBDuplicateEntry', kinds)
        self.assertIn('DBReferenceError', kinds)
        self.assertIn('ResourceConflict', kinds)
        self.assertIn('OverQuota', kinds)


class TestContexts(base.DatabaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(oslo_fixture.ClearRequestContext())
        self.user = context.RequestContext(
            'u', 'p', read_deleted='yes', roles=['member'], request_id='req-1'
        )

    def test_who_asks_goes_along(self) -> None:
        for twin in pickled(self.user.stale()):
            self.assertIsInstance(twin, context.RequestContext)
            self.assertEqual(self.user.to_dict(), twin.to_dict())
            self.assertTrue(twin.takes_stale)
        for twin in pickled(self.user.elevated('only')):
            self.assertEqual(
                (True, 'only'), (twin.is_admin, twin.read_deleted)
            )

    def test_the_transaction_stays_behind(self) -> None:
        with self.assertRaisesRegex(ValueError, 'mine'):
            with db.api.transaction(self.context):
                factories_made = db.api.service_create(
                    self.context, {'host': 'h', 'binary': 'b'}
                )
                twins_made = list(pickled(self.context))
                raise ValueError('mine')
        for number, twin in enumerate(twins_made):
            self.assertIsNone(twin.transaction_slot.transaction)
            made = db.api.service_create(
                twin, {'host': str(number), 'binary': 'b'}
            )
            self.assertEqual(
                made.id, db.api.service_get(self.context, made.id).id
            )
        self.assertRaises(
            exception.ServiceNotFound,
            db.api.service_get,
            self.context,
            factories_made.id,
        )

    def test_copies_of_a_pickled_one_share_its_transaction(self) -> None:
        for twin in pickled(self.context):
            with db.api.transaction(twin) as session:
                for each in (twin.elevated(), twin.using(None), twin.stale()):
                    self.assertIs(session, db.api.get_session(each))
            self.assertIsNot(
                twin.transaction_slot, self.context.transaction_slot
            )

    def test_engines_stay_behind(self) -> None:
        engines = db.api.Engines(self.database.conf)
        self.addCleanup(engines.dispose)
        for twin in pickled(self.context.using(engines)):
            self.assertIsNone(twin.engines)
            again = twin.using(engines)
            with db.api.transaction(again):
                self.assertIsNone(twin.transaction_slot.transaction)

    def test_a_copy_shares_and_a_deep_copy_does_not(self) -> None:
        engines = db.api.Engines(self.database.conf)
        self.addCleanup(engines.dispose)
        there = self.context.using(engines)
        with db.api.transaction(there):
            self.assertIs(
                there.transaction_slot, copy.copy(there).transaction_slot
            )
            deep = copy.deepcopy({'a': there, 'b': [there]})
            self.assertIs(deep['a'], deep['b'][0])
            twin: Any = deep['a']
            self.assertIs(engines, twin.engines)
            self.assertIsNone(twin.transaction_slot.transaction)
            self.assertIs(
                twin.transaction_slot, twin.using(engines).transaction_slot
            )

    def test_an_unpickled_one_is_not_the_context_of_the_thread(self) -> None:
        sent = pickle.dumps(self.user)
        self.useFixture(oslo_fixture.ClearRequestContext())
        pickle.loads(sent)
        self.assertIsNone(oslo_context.get_current())


class TestRows(base.DatabaseTestCase):
    def test_all_that_calls_return(self) -> None:
        kinds = set()
        # These would create the service that service_register does.
        twice = {'service_create', 'run_in_transaction'}
        for name in set(calls.names()) - twice:
            returned = calls.example(name, calls.World(name))()
            each = returned if isinstance(returned, list) else [returned]
            kinds |= {type(one).__name__ for one in each}
            for twin in twins(returned):
                self.assertEqual(returned, twin, name)
                self.assertIs(type(returned), type(twin), name)
                self.assertEqual(repr(returned), repr(twin), name)
        for kind in ('ServiceRow', 'ResourceRow', 'QuotaRow', 'Claim'):
            self.assertIn(kind, kinds)

    def test_a_row_reads_as_before(self) -> None:
        row = factories.create_service(host='h')
        for twin in twins(row):
            self.assertEqual(('h', 'h'), (twin.host, twin['host']))
            self.assertEqual(row.is_up, twin.is_up)
            self.assertEqual(dict(row), dict(twin))

    def test_a_claim_that_has_travelled_is_taken(self) -> None:
        service = factories.create_service()
        resource = db.api.resource_create(self.context, {'project_id': 'p'})
        for _ in PROTOCOLS:
            claim = db.api.resource_claim(
                self.context, resource.id, service.id
            )
            *_, twin = twins(claim)
            db.api.resource_release(self.context, twin)

    def test_what_filters_are_made_of(self) -> None:
        for value in (
            db.api.Not(('a', None)),
            db.api.Range(1, 2),
            db.api.StartsWith('a'),
            db.api.Contains('a'),
        ):
            for twin in twins(value):
                self.assertEqual(value, twin)
