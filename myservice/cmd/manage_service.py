"""myservice-manage service: the services and their state."""

import argparse
from typing import Any

from myservice import context
from myservice import db
from myservice.cmd import output
from myservice.cmd import parsers


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
        output.print_json([dict(service) for service in services])
        return
    output.print_table(
        ('ID', 'Host', 'Binary', 'Zone', 'Status', 'State', 'Last seen'),
        map(_row, services),
    )


def service_show(arguments: Any) -> None:
    """Show everything about one service."""
    service = db.api.service_get(context.get_admin_context(), arguments.id)
    output.result(arguments, **dict(service))


def service_disable(arguments: Any) -> None:
    """Tell schedulers not to give a service new work."""
    _update(arguments, disabled=True, disabled_reason=arguments.reason)


def service_enable(arguments: Any) -> None:
    """Enable a service again."""
    _update(arguments, disabled=False, disabled_reason=None)


def service_remove(arguments: Any) -> None:
    """Destroy a service that is gone for good."""
    db.api.service_destroy(
        context.get_admin_context(), arguments.id, force=arguments.force
    )
    output.result(arguments, id=arguments.id, removed=True)


def _update(arguments: Any, **values: Any) -> None:
    admin = context.get_admin_context()
    db.api.service_update(admin, arguments.id, values)
    output.result(arguments, id=arguments.id, **values)


def _row(service: Any) -> tuple[Any, ...]:
    seen = service.last_seen_at
    return (
        service.id,
        service.host,
        service.binary,
        service.availability_zone,
        _status(service),
        _state(service),
        seen and seen.replace(microsecond=0),
    )


def _status(service: Any) -> str:
    if not service.disabled:
        return 'enabled'
    reason = service.disabled_reason
    return f'disabled: {reason}' if reason else 'disabled'


def _state(service: Any) -> str:
    if service.forced_down:
        return 'forced down'
    if service.unregistered_at is not None:
        return 'down: stopped'
    return 'up' if service.is_up else 'down'


def add_parsers(groups: Any) -> None:
    """Add the group to the command line.

    :param groups: the groups of the program
    """
    services = parsers.add_group(
        groups, 'service', 'the services and their state'
    )
    _add_list_arguments(parsers.add_command(services, 'list', service_list))
    for name, function in (
        ('show', service_show),
        ('disable', service_disable),
        ('enable', service_enable),
        ('remove', service_remove),
    ):
        command = parsers.add_command(services, name, function)
        command.add_argument('id', help='the id of the service')
        if function is service_disable:
            command.add_argument('--reason', help='why, for other operators')
        if function is service_remove:
            command.add_argument(
                '--force',
                action='store_true',
                help='even if it holds claims; this frees them',
            )


def _add_list_arguments(listing: argparse.ArgumentParser) -> None:
    for name in ('host', 'binary', 'topic', 'availability-zone'):
        listing.add_argument(f'--{name}', help='only those with this one')
    _add_choice(listing, 'is_up', '--up', '--down')
    _add_choice(listing, 'disabled', '--disabled', '--enabled')
    listing.add_argument(
        '--sort',
        default='host,binary',
        metavar='KEY[:DIRECTION],…',
        help='columns to sort by, each with asc or desc',
    )
    listing.add_argument('--limit', type=int, help='this many at most')
    listing.add_argument('--marker', help='those after the one with this id')


def _add_choice(
    listing: argparse.ArgumentParser, dest: str, yes: str, no: str
) -> None:
    either = listing.add_mutually_exclusive_group()
    for option, value in ((yes, True), (no, False)):
        either.add_argument(
            option,
            dest=dest,
            action='store_const',
            const=value,
            help=f'only those that are {option[2:]}',
        )
