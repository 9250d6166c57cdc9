"""Rules that every public function follows, read off the code itself."""

import ast
import inspect
import pathlib
import pickle
import re
from collections.abc import Iterator

import myservice
from myservice import db
from myservice import exception
from myservice.db.sql.dialects import NAMES
from myservice.tests import base

ROOT = pathlib.Path(myservice.__file__).parent

# The modules of db/ that offer functions which are transactions.
MODULES = (
    'service',
    'service_count',
    'quotas.quota',
    'quotas.quota_class',
    'quotas.usage',
    'quotas.reservation',
    'resources.resource',
    'resources.metadata',
    'resources.tags',
    'resources.claim',
    'resources.count',
    'maintenance',
)

# The floors of myservice, from the lowest to the highest: a module imports
# what is below it, or stands in the same room.
FLOORS = (
    ('pickling', 'servers'),
    ('exception',),
    ('plain', 'threads'),
    ('conf', 'context'),
    ('db.validation', 'db.rows', 'db.operation'),
    ('db.sql',),
    ('db.engine',),
    ('db.bases',),
    ('db.models',),
    ('db.migrations',),
    ('db.transaction', 'db.liveness'),
    ('db.query',),
    ('db.quotas', 'db.service_rows'),
    ('db.resources', 'db.service_lookup'),
    ('db.service', 'db.service_count', 'db.maintenance', 'db.migration'),
    ('db.api',),
    ('db',),
    ('worker', 'web', 'fixtures'),
    ('agent',),
    ('cmd',),
)

# What a public function may do before it opens its session.
CHECKS = re.compile(
    r'require_admin|require_project|\w+\.check_\w+|^_check_\w+|= _check_new\('
    r'|listing\.with_filter|LISTING\.(page|check_filters)'
)

# What is raised by what modules share.
RAISED_BY = {
    'require_admin': {'AdminRequired'},
    'require_project': {'ProjectForbidden', 'InvalidInput'},
    'limits.check_limit': {'InvalidInput'},
    'limits.check_resource': {'InvalidInput', 'QuotaResourceUnknown'},
    'limits.check_deltas': {'InvalidInput', 'QuotaResourceUnknown'},
    'counting.check_count': {'InvalidInput'},
    'access.get': {'ResourceNotFound'},
    'access.get_many': {'ResourcesNotFound'},
    'insertion.check_made_of': {'ResourceExists'},
    'service_lookup.get': {'ServiceNotFound'},
    'service_lookup.get_by_host_and_binary': {'HostBinaryNotFound'},
    'service_lookup.get_many': {'ServicesNotFound'},
    'child_rows.read_of_one': {'ResourceNotFound'},
    'access.get_for_writing': {'ResourceNotFound', 'ClaimLost'},
    '_conflict': {'ResourceConflict'},
    'service_rows.refusal': {'ServiceNotFound', 'ServiceReplaced'},
    'acquire.lock_service': {'ServiceNotFound', 'ServiceReplaced'},
    'acquire.claim_unclaimed': {'ServiceNotFound', 'ServiceReplaced'},
    'acquire.refusal': {
        'ResourceNotFound',
        'ResourceClaimed',
        'ServiceNotFound',
        'ServiceReplaced',
    },
    'holder.claimed': {'ResourceClaimed'},
    'replacement.refusal': {'ServiceNotFound', 'ServiceReplaced', 'ClaimLost'},
    'enforcement.take': {'OverQuota', 'QuotaUsageOverflow'},
}


def functions(module: str) -> dict[str, ast.FunctionDef]:
    path = ROOT / 'db' / f'{module.replace(".", "/")}.py'
    tree = ast.parse(path.read_text())
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }


def floor_and_room(module: str) -> tuple[int, str]:
    """Return the floor of a module, and its room: a folder, or itself."""
    below = module.removeprefix('myservice.')
    matches = [
        (len(room), floor, room)
        for floor, rooms in enumerate(FLOORS)
        for room in rooms
        if below == room or below.startswith(f'{room}.')
    ]
    _, floor, room = max(matches)
    return floor, room


def public(module: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for name, node in functions(module).items():
        if not name.startswith('_'):
            yield name, node


def called(node: ast.AST) -> set[str]:
    return {
        ast.unparse(part.func)
        for part in ast.walk(node)
        if isinstance(part, ast.Call)
    }


def raised(node: ast.AST, module: str, seen: set[str]) -> set[str]:
    """Return the errors that a function and its helpers raise by name."""
    errors = {
        name.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Raise) and part.exc is not None
        for name in ast.walk(part.exc)
        if isinstance(name, ast.Attribute)
        and isinstance(getattr(exception, name.attr, None), type)
    }
    for name in called(node) - seen:
        if name.startswith('_') and name in functions(module):
            errors |= raised(functions(module)[name], module, seen | {name})
        if name.startswith('validation.') or name == '_LISTING.page':
            errors.add('InvalidInput')
        errors |= RAISED_BY.get(name, set())
    return errors


class TestPublicFunctions(base.TestCase):
    def test_each_is_exported(self) -> None:
        for module in MODULES:
            for name, _ in public(module):
                self.assertIn(name, db.api.__all__)
                self.assertTrue(callable(getattr(db.api, name)))

    def test_the_facade_has_no_logic_and_exports_all_that_it_imports(
        self,
    ) -> None:
        tree = ast.parse((ROOT / 'db' / 'api.py').read_text())
        self.assertEqual(
            {ast.Expr, ast.ImportFrom, ast.Assign},
            {type(node) for node in tree.body},
        )
        imported = [
            alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        ]
        self.assertEqual(sorted(imported), sorted(db.api.__all__))

    def test_each_is_in_the_documentation(self) -> None:
        path = ROOT.parent / 'doc/source/reference/api.rst'
        named = re.findall(r'^\.\. auto\w+:: (\w+)$', path.read_text(), re.M)
        self.assertEqual(set(), set(db.api.__all__) - set(named))

    def test_each_is_wrapped_for_retry(self) -> None:
        for module in MODULES:
            for name, node in public(module):
                wrappers = [ast.unparse(d) for d in node.decorator_list]
                self.assertTrue(
                    wrappers[-1].startswith('retry_on_failure'), name
                )
                self.assertIn(wrappers[:-1], ([], ['in_batches']), name)

    def test_each_opens_its_session_right_after_its_checks(self) -> None:
        for module in MODULES:
            for name, node in public(module):
                body = node.body[1:]
                while CHECKS.search(ast.unparse(body[0])):
                    body = body[1:]
                self.assertRegex(
                    ast.unparse(body[0]),
                    r'^session = get_session\(context'
                    r"(, \w+=(True|'\w+' not in values))*\)$",
                    name,
                )
                self.assertEqual(
                    'with session.begin():',
                    ast.unparse(body[1]).splitlines()[0],
                    name,
                )
                self.assertEqual([], body[2:], name)

    def test_none_calls_another_one(self) -> None:
        everyone = {name for m in MODULES for name, _ in public(m)}
        for module in MODULES:
            for name, node in functions(module).items():
                self.assertEqual(set(), called(node) & everyone, name)

    def test_helpers_take_a_session_and_do_not_end_it(self) -> None:
        for module in MODULES:
            for name, node in functions(module).items():
                uses = 'session' in ast.unparse(node)
                if not name.startswith('_') or not uses:
                    continue
                keywords = [a.arg for a in node.args.kwonlyargs]
                self.assertEqual(['session'], keywords, name)
                self.assertEqual(
                    set(),
                    called(node)
                    & {'get_session', 'session.commit', 'session.rollback'},
                )

    def test_each_is_documented_with_its_arguments_and_errors(self) -> None:
        for module in MODULES:
            for name, node in public(module):
                text = ast.get_docstring(node) or ''
                for argument in (*node.args.args, *node.args.kwonlyargs):
                    self.assertIn(f':param {argument.arg}:', text, name)
                documented = set(re.findall(r':raises (\w+):', text))
                self.assertEqual(
                    set(), raised(node, module, set()) - documented, name
                )
                returns = ast.unparse(node.returns or ast.Constant(None))
                self.assertEqual(returns != 'None', ':returns:' in text, name)

    def test_context_comes_first(self) -> None:
        for module in MODULES:
            for name, node in public(module):
                self.assertEqual('context', node.args.args[0].arg, name)


class TestImports(base.TestCase):
    """Imports point one way, and outsiders come through db.api."""

    def imports(self, path: pathlib.Path) -> set[str]:
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {f'{node.module}.{a.name}' for a in node.names}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        return names

    def test_only_the_engine_knows_enginefacade(self) -> None:
        for path in ROOT.rglob('*.py'):
            if 'tests' not in path.parts and path.name != 'engines.py':
                for name in self.imports(path):
                    self.assertNotIn('enginefacade', name, path)

    def test_outsiders_come_through_the_facade(self) -> None:
        allowed = {'myservice.db', 'myservice.db.migration'}
        for path in ROOT.rglob('*.py'):
            parts = path.relative_to(ROOT).parts
            if parts[0] in ('db', 'tests', 'fixtures.py'):
                continue
            inside = {
                name
                for name in self.imports(path)
                if name.startswith('myservice.db')
            }
            self.assertEqual(set(), inside - allowed, path)

    def modules(self) -> dict[str, set[str]]:
        """Return the modules below myservice, and what each one imports."""
        found: dict[str, set[str]] = {}
        for path in ROOT.rglob('*.py'):
            if 'tests' not in path.parts:
                parts = path.relative_to(ROOT.parent).with_suffix('').parts
                name = '.'.join(parts).removesuffix('.__init__')
                found[name] = self.imports(path)
        # Of a name that is imported it is the module that counts.
        return {
            name: {
                each if each in found else each.rpartition('.')[0]
                for each in imports
            }
            & found.keys() - {'myservice'}
            for name, imports in found.items()
            if name != 'myservice'
        }

    def test_arrows_point_down(self) -> None:
        for name, imports in self.modules().items():
            for target in imports:
                here, there = floor_and_room(name), floor_and_room(target)
                self.assertTrue(
                    here == there or here[0] > there[0],
                    f'{name} imports {target}',
                )

    def test_there_is_no_cycle(self) -> None:
        graph = self.modules()
        done: set[str] = set()

        def visit(name: str, trail: tuple[str, ...]) -> None:
            self.assertNotIn(name, trail, 'a cycle')
            if name not in done:
                for target in graph[name]:
                    visit(target, (*trail, name))
                done.add(name)

        for name in graph:
            visit(name, ())


class TestNamesOfDatabases(base.TestCase):
    """Only dialects.py knows dialects and drivers by name.

    MariaDB has two, and a list of names elsewhere would have one of them.
    """

    TELLS = re.compile(
        r'(\bdialect|engine|\bbind|\bget_bind\(\))\.(name|driver)$'
        r'|\.(get_backend_name|get_driver_name|drivername)$'
    )
    # Functions that take the names of dialects.
    HOOKS = re.compile(
        r'\b(compiles|with_hint|with_statement_hint|prefix_with|suffix_with'
        r'|ddl_if|execute_if|with_variant)$'
    )

    def test_nobody_else_asks_for_one(self) -> None:
        for path, node in self.code():
            if isinstance(node, ast.Attribute):
                self.assertNotRegex(
                    ast.unparse(node),
                    self.TELLS,
                    f'{path}: dialects.backend_of() tells',
                )

    def test_nobody_else_names_one_to_sqlalchemy(self) -> None:
        names = {name for each in NAMES.values() for name in each}
        for path, node in self.code():
            if not isinstance(node, ast.Call):
                continue
            if not self.HOOKS.search(ast.unparse(node.func)):
                continue
            keywords = [each.value for each in node.keywords]
            for each in (*node.args, *keywords):
                named = isinstance(each, ast.Constant) and each.value in names
                self.assertFalse(named, f'{path}: {ast.unparse(node)}')

    def test_nobody_else_compares_one(self) -> None:
        for path, node in self.code():
            ours = ROOT in path.parents and 'tests' not in path.parts
            if not ours or not isinstance(node, ast.Compare):
                continue
            compared = {
                each.value
                for part in (node.left, *node.comparators)
                for each in ast.walk(part)
                if isinstance(each, ast.Constant)
            }
            self.assertEqual(
                set(),
                compared & set(NAMES),
                f'{path}: dialects.ABILITIES says how they differ',
            )

    def code(self) -> Iterator[tuple[pathlib.Path, ast.AST]]:
        for folder in ('myservice', 'bench', 'tools', 'examples'):
            for path in (ROOT.parent / folder).rglob('*.py'):
                if path.name in ('dialects.py', 'test_dialects.py'):
                    continue
                for node in ast.walk(ast.parse(path.read_text())):
                    yield path, node


class TestTests(base.TestCase):
    def test_what_comes_at_any_point_comes_from_one_fixture(self) -> None:
        armed = re.compile(r'signal\.(setitimer|ITIMER)|SetAsyncExc\(')
        for path in (ROOT / 'tests' / 'unit').rglob('*.py'):
            self.assertIsNone(armed.search(path.read_text()), path.name)


class TestLongLists(base.TestCase):
    """A list of a caller's own goes into a statement by in_list.py only."""

    def test_nobody_else_writes_a_list_into_a_statement(self) -> None:
        for path in ROOT.rglob('*.py'):
            if 'tests' in path.parts or path.name == 'in_list.py':
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                text = f'{path}: {ast.unparse(node)}'
                name = getattr(node.func, 'attr', '')
                if name in ('in_', 'not_in', 'notin_'):
                    # What is written out is as long as it is.
                    self.assertIsInstance(node.args[0], ast.Tuple, text)

    def test_no_refusal_shows_all_of_what_was_passed(self) -> None:
        for path in (ROOT / 'db').rglob('*.py'):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not re.search(
                    r'\b_?invalid$|InvalidInput$', ast.unparse(node.func)
                ):
                    continue
                for part in ast.walk(node):
                    if isinstance(part, ast.FormattedValue):
                        bounded = part.conversion == -1 or part.format_spec
                        self.assertTrue(
                            bounded, f'{path}: {ast.unparse(node)}'
                        )


class TestErrors(base.TestCase):
    def test_each_has_the_fields_that_its_message_names(self) -> None:
        for name, kind in inspect.getmembers(exception, inspect.isclass):
            if not issubclass(kind, exception.MyServiceError):
                continue
            fields = set(re.findall(r'{(\w+)}', kind.message))
            declared = {
                field
                for parent in kind.__mro__
                for field in getattr(parent, '__annotations__', {})
            } - {'message'}
            self.assertEqual(set(), fields - declared, name)
            error = kind(**{field: 'x' for field in declared})
            for field in declared:
                self.assertEqual('x', getattr(error, field))

    def test_each_survives_being_sent_to_another_process(self) -> None:
        error = exception.ServiceExists(host='h', binary='b')
        copy = pickle.loads(pickle.dumps(error))
        self.assertEqual((str(error), 'h'), (str(copy), copy.host))


class NamedTests(base.TestCase):
    """A document that names tests."""

    TEST = re.compile(r'``(test_\w+)\.([A-Z]\w+)(?:\.(test_\w+))?``')

    def assert_named_tests_exist(self, text: str) -> None:
        """Check that a text names tests, all of which exist."""
        named = self.TEST.findall(text)
        self.assertNotEqual([], named, text)
        for module, test_class, test in named:
            self.assertIn(test, self.names_in(module, test_class), text)

    def names_in(self, module: str, test_class: str) -> set[str]:
        """Return the names of the tests of a class, and the empty one."""
        found = {''}
        for path in (ROOT / 'tests').rglob(f'{module}.py'):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and node.name == test_class:
                    names = (getattr(each, 'name', '') for each in node.body)
                    return found | set(names)
        self.fail(f'there is no {module}.{test_class}')


class TestFieldFaults(NamedTests):
    """The page of faults from the field names tests that exist."""

    PAGE = ROOT.parent / 'doc/source/contributor/field-faults.rst'

    def test_each_row_names_its_tests_which_exist(self) -> None:
        rows = re.split(r'^   \* - ', self.PAGE.read_text(), flags=re.M)[1:]
        for row in rows:
            if not row.startswith('kind\n'):
                self.assert_named_tests_exist(row)


class TestHacking(NamedTests):
    """HACKING.rst names the tests that enforce the rules."""

    PAGE = ROOT.parent / 'HACKING.rst'

    def test_each_rule_names_its_tests_which_exist(self) -> None:
        enforced = self.PAGE.read_text().partition('\nStyle\n=')[0]
        for rule in re.split(r'^- ', enforced, flags=re.M)[1:]:
            self.assert_named_tests_exist(rule)

    def test_each_rule_of_this_module_is_in_it(self) -> None:
        named = self.TEST.findall(self.PAGE.read_text())
        for node in ast.parse(pathlib.Path(__file__).read_text()).body:
            if not isinstance(node, ast.ClassDef):
                continue
            for each in node.body:
                name = getattr(each, 'name', '')
                if name.startswith('test_'):
                    self.assertIn(('test_structure', node.name, name), named)
