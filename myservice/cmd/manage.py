"""myservice-manage: the command line of operators."""

import argparse
import datetime
import json
import logging
import sys
from collections.abc import Iterable
from typing import Any

from oslo_config import cfg
from oslo_config import generator
from rich import console
from rich import table

from myservice import context
from myservice import db
from myservice.cmd import common
from myservice.db import migration

PROGRAM = 'myservice-manage'

_CODES = (
    'Exit codes: 0 done; 1 refused, or the answer is no; 2 the command line, '
    'the configuration or the database is at fault.'
)


def db_sync(arguments: Any) -> None:
    """Create the tables, or bring them up to a revision."""
    migration.sync(arguments.revision)
    _result(arguments, revision=migration.current())


def db_version(arguments: Any) -> None:
    """Show the revision of the tables, and the newest of this release."""
    _result(arguments, revision=migration.current(), head=migration.head())


def db_check(arguments: Any) -> int:
    """Compare the tables with the models; exit code 1 where they differ."""
    difference = migration.check()
    _result(arguments, differs=difference is not None, difference=difference)
    return common.DONE if difference is None else common.REFUSED


def db_revision(arguments: Any) -> None:
    """Write a migration from what the models are ahead by (developers)."""
    _result(arguments, script=migration.revision(arguments.message))


def service_list(arguments: Any) -> None:
    """List services."""
    filters = {
        name: getattr(arguments, name)
        for name in ('host', 'binary', 'topic', 'availability_zone')
    } | {'is_up': arguments.is_up, 'disabled': arguments.disabled}
    keys = [key.partition(':') for key in arguments.sort.split(',')]
    services = db.api.service_get_all(
        context.get_admin_context(),
        filters,
        arguments.limit,
        arguments.marker,
        [name for name, _, _ in keys],
        [direction or 'asc' for _, _, direction in keys],
    )
    if arguments.json:
        _print_json([dict(service) for service in services])  # type: ignore[call-overload]
        return
    _print_table(
        ('ID', 'Host', 'Binary', 'Zone', 'Status', 'State', 'Last seen'),
        (
            (
                service.id,
                service.host,
                service.binary,
                service.availability_zone,
                _status(service),
                _state(service),
                service.last_seen_at
                and service.last_seen_at.replace(microsecond=0),
            )
            for service in services
        ),
    )


def service_show(arguments: Any) -> None:
    """Show all that is known of one service."""
    service = db.api.service_get(context.get_admin_context(), arguments.id)
    _result(arguments, **dict(service))  # type: ignore[call-overload]


def service_disable(arguments: Any) -> None:
    """Tell schedulers to give a service no new work."""
    _update(arguments, disabled=True, disabled_reason=arguments.reason)


def service_enable(arguments: Any) -> None:
    """Take back a disable."""
    _update(arguments, disabled=False, disabled_reason=None)


def service_remove(arguments: Any) -> None:
    """Destroy a service that is gone for good."""
    db.api.service_destroy(
        context.get_admin_context(), arguments.id, force=arguments.force
    )
    _result(arguments, id=arguments.id, removed=True)


def config_sample(arguments: Any) -> None:
    """Print a sample configuration file with every option."""
    generator.main(['--namespace', 'myservice', '--namespace', 'oslo.log'])


def _update(arguments: Any, **values: Any) -> None:
    admin = context.get_admin_context()
    db.api.service_update(admin, arguments.id, values)
    _result(arguments, id=arguments.id, **values)


def _status(service: Any) -> str:
    if not service.disabled:
        return 'enabled'
    reason = service.disabled_reason
    return f'disabled: {reason}' if reason else 'disabled'


def _state(service: Any) -> str:
    if service.forced_down:
        return 'forced down'
    return 'up' if service.is_up else 'down'


def _result(arguments: Any, **fields: Any) -> None:
    if arguments.json:
        _print_json(fields)
    else:
        _print_table(('Field', 'Value'), fields.items())


def _print_json(answer: Any) -> None:
    print(json.dumps(answer, indent=2, default=_to_json))


def _to_json(value: Any) -> str:
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    raise TypeError(f'{value!r} has no form in JSON')


def _print_table(headings: Iterable[str], rows: Iterable[Any]) -> None:
    # A pipe has no width; eighty columns would cut what a script looks for.
    screen = console.Console(
        highlight=False,
        markup=False,
        emoji=False,
        width=None if sys.stdout.isatty() else 1000,
    )
    grid = table.Table()
    for heading in headings:
        grid.add_column(heading, overflow='fold')
    for row in rows:
        grid.add_row(*('-' if cell is None else str(cell) for cell in row))
    screen.print(grid)


def _add_parsers(groups: Any) -> None:
    database = _add_group(groups, 'db', 'the schema of the database')
    sync = _add_command(database, 'sync', db_sync)
    sync.add_argument('revision', nargs='?', default='head')
    _add_command(database, 'version', db_version)
    _add_command(database, 'check', db_check)
    revision = _add_command(database, 'revision', db_revision)
    revision.add_argument(
        '-m', '--message', required=True, help='what the migration does'
    )

    services = _add_group(groups, 'service', 'the services and their state')
    listing = _add_command(services, 'list', service_list)
    for name in ('host', 'binary', 'topic', 'availability-zone'):
        listing.add_argument(f'--{name}', help='only those with this one')
    for dest, yes, no in (
        ('is_up', '--up', '--down'),
        ('disabled', '--disabled', '--enabled'),
    ):
        either = listing.add_mutually_exclusive_group()
        for option, value in ((yes, True), (no, False)):
            either.add_argument(
                option,
                dest=dest,
                action='store_const',
                const=value,
                help=f'only those that are {option[2:]}',
            )
    listing.add_argument(
        '--sort',
        default='host,binary',
        metavar='KEY[:DIRECTION],…',
        help='columns to sort by, each with asc or desc',
    )
    listing.add_argument('--limit', type=int, help='this many at most')
    listing.add_argument('--marker', help='those after the one with this id')
    for name, function in (
        ('show', service_show),
        ('disable', service_disable),
        ('enable', service_enable),
        ('remove', service_remove),
    ):
        command = _add_command(services, name, function)
        command.add_argument('id', help='the id of the service')
        if function is service_disable:
            command.add_argument('--reason', help='why, for other operators')
        if function is service_remove:
            command.add_argument(
                '--force',
                action='store_true',
                help='also while it holds claims, which are freed',
            )

    config = _add_group(groups, 'config', 'configuration files')
    _add_command(config, 'sample', config_sample)


def _add_group(groups: Any, name: str, summary: str) -> Any:
    group = groups.add_parser(name, help=summary, epilog=_CODES)
    return group.add_subparsers(
        title='commands', metavar='COMMAND', required=True
    )


def _add_command(
    group: Any, name: str, function: Any
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(
        name,
        help=function.__doc__,
        description=function.__doc__,
        epilog=_CODES,
    )
    parser.set_defaults(function=function)
    parser.add_argument('--json', action='store_true', help='answer as JSON')
    return parser


_OPTS = [
    cfg.SubCommandOpt(
        'command',
        title='groups of commands',
        description='Options of the whole program, as --config-file, stand '
        'before the group. ' + _CODES,
        handler=_add_parsers,
    ),
    cfg.BoolOpt('debug', short='d', default=False, help='Show what is done.'),
]


def main(argv: list[str] | None = None) -> int:
    """Run the command that the command line names."""

    def body() -> int | None:
        conf = common.start(
            PROGRAM, argv, lambda conf: conf.register_cli_opts(_OPTS)
        )
        if conf.debug:
            logging.basicConfig(level=logging.DEBUG)
        else:
            # What libraries warn of comes again in the one line at the end.
            logging.getLogger().addHandler(logging.NullHandler())
        # Who types a command would rather hear at once that there is no
        # server than see it retried.
        conf.set_default('db_max_retries', 2, group='database')
        code: int | None = conf.command.function(conf.command)
        return code

    return common.run(PROGRAM, body)


if __name__ == '__main__':
    sys.exit(main())
