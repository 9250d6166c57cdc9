"""myservice-manage resource: the resources, and their claims."""

import argparse
from typing import Any

from myservice import context
from myservice import db
from myservice import exception
from myservice.cmd import output
from myservice.cmd import parsers

_HEADINGS = (
    'ID',
    'Project',
    'Name',
    'Kind',
    'Size',
    'Status',
    'Service',
    'Created',
)
_LONG_HEADINGS = ('Metadata', 'Tags')

# The filters by tags, with the option for each.
_TAG_OPTIONS = {
    'tags': (
        '--tag',
        'only those with this tag; if repeated, with all of them',
    ),
    'tags-any': (
        '--tag-any',
        'only those with this tag; if repeated, with at least one of them',
    ),
    'not-tags': (
        '--not-tag',
        'only those without this tag; if repeated, not with all of them',
    ),
    'not-tags-any': (
        '--not-tag-any',
        'only those without this tag; if repeated, with none of them',
    ),
}


def resource_list(arguments: Any) -> None:
    """List resources."""
    admin = context.get_admin_context()
    resources = _page(admin, arguments)
    if arguments.json:
        output.print_json(_with_details(admin, resources))
    elif arguments.long:
        output.print_table(
            _HEADINGS + _LONG_HEADINGS,
            map(_long_row, _with_details(admin, resources)),
        )
    else:
        output.print_table(_HEADINGS, map(_row, map(_fields, resources)))


def resource_show(arguments: Any) -> None:
    """Show everything about one resource."""
    admin = context.get_admin_context()
    resource = db.api.resource_get(admin, arguments.id)
    (fields,) = _with_details(admin, [resource])
    if not arguments.json:
        fields = {name: _in_words(value) for name, value in fields.items()}
    output.result(arguments, **fields)


def resource_release(arguments: Any) -> None:
    """Take a claim away from the service that holds it."""
    admin = context.get_admin_context()
    resource = db.api.resource_get(admin, arguments.id)
    holder, generation = resource.service_id, resource.claim_generation
    if holder is None or generation is None:
        raise exception.ResourceNotClaimed(resource_id=resource.id)
    # A service that claimed it meanwhile keeps its claim.
    db.api.resource_release(
        admin, db.api.Claim(resource.id, holder, generation)
    )
    output.result(
        arguments,
        id=resource.id,
        released=True,
        service_id=holder,
        claim_generation=generation,
    )


def _page(admin: context.RequestContext, arguments: Any) -> list[Any]:
    keys = [key.partition(':') for key in arguments.sort.split(',')]
    return db.api.resource_get_all(
        admin,
        _filters(arguments),
        arguments.limit,
        arguments.marker,
        [name for name, _, _ in keys],
        [direction or 'asc' for _, _, direction in keys],
    )


def _filters(arguments: Any) -> dict[str, Any]:
    contained = arguments.name_contains
    return {
        'project_id': arguments.project_id,
        'name': arguments.exact_name
        if contained is None
        else db.api.Contains(contained),
        'kind': arguments.kind,
        'status': arguments.status,
        'service_id': arguments.service_id,
        'is_claimed': arguments.is_claimed,
        # With an empty filter, the list could not use the index of its order.
        **{name: getattr(arguments, name) or None for name in _TAG_OPTIONS},
        'metadata': _parsed(arguments.metadata) or None,
    }


def _parsed(pairs: list[str]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition('=')
        if not equals:
            raise exception.InvalidInput(
                field='metadata',
                reason=f'{pair!r:.100} is not of the form KEY=VALUE',
            )
        if metadata.setdefault(key, value) != value:
            raise exception.InvalidInput(
                field='metadata',
                reason=f'{key!r:.100} cannot have two values at once',
            )
    return metadata


def _with_details(
    admin: context.RequestContext, resources: list[Any]
) -> list[dict[str, Any]]:
    """Return resources as dicts, with metadata and tags."""
    resource_ids = [resource.id for resource in resources]
    metadata = db.api.resource_metadata_get_many(admin, resource_ids)
    tags = db.api.resource_tags_get_many(admin, resource_ids)
    return [
        _fields(resource)
        | {'metadata': metadata[resource.id], 'tags': tags[resource.id]}
        for resource in resources
    ]


def _fields(resource: Any) -> dict[str, Any]:
    return dict(resource)


def _row(fields: dict[str, Any]) -> tuple[Any, ...]:
    return (
        fields['id'],
        _in_words(fields['project_id']),
        fields['name'],
        fields['kind'],
        fields['size'],
        fields['status'],
        fields['service_id'],
        fields['created_at'].replace(microsecond=0),
    )


def _long_row(fields: dict[str, Any]) -> tuple[Any, ...]:
    return (
        *_row(fields),
        _in_words(fields['metadata']),
        _in_words(fields['tags']),
    )


def _in_words(value: Any) -> Any:
    if isinstance(value, dict):
        value = [f'{key}={text}' for key, text in value.items()]
    if isinstance(value, list):
        value = ', '.join(value) or None
    return value


def add_parsers(groups: Any) -> None:
    """Add the group to the command line.

    :param groups: the groups of the program
    """
    resources = parsers.add_group(
        groups, 'resource', 'the resources, and their claims'
    )
    listing = parsers.add_command(resources, 'list', resource_list)
    _add_filter_arguments(listing)
    _add_name_arguments(listing)
    _add_claim_arguments(listing)
    _add_page_arguments(listing)
    for name, function in (
        ('show', resource_show),
        ('release', resource_release),
    ):
        command = parsers.add_command(resources, name, function)
        command.add_argument('id', metavar='ID', help='the id of the resource')


def _add_filter_arguments(listing: argparse.ArgumentParser) -> None:
    listing.add_argument(
        '--project',
        dest='project_id',
        metavar='PROJECT',
        help='only those of this project',
    )
    for name in ('kind', 'status'):
        listing.add_argument(f'--{name}', help='only those with this one')
    for name, (option, text) in _TAG_OPTIONS.items():
        listing.add_argument(
            option,
            dest=name,
            metavar='TAG',
            action='append',
            default=[],
            help=text,
        )
    listing.add_argument(
        '--metadata',
        metavar='KEY=VALUE',
        action='append',
        default=[],
        help='only those with this value of this key; if repeated, with all '
        'of them',
    )


def _add_name_arguments(listing: argparse.ArgumentParser) -> None:
    either = listing.add_mutually_exclusive_group()
    either.add_argument(
        '--name',
        # "name" is taken by the group of commands.
        dest='exact_name',
        metavar='NAME',
        help='only those with this name',
    )
    either.add_argument(
        '--name-contains',
        metavar='TEXT',
        help='only those with this text in their name',
    )


def _add_claim_arguments(listing: argparse.ArgumentParser) -> None:
    listing.add_argument(
        '--service',
        # "service" is taken by the group of options.
        dest='service_id',
        metavar='ID',
        help='only those that the service with this id holds',
    )
    either = listing.add_mutually_exclusive_group()
    for option, value, who in (
        ('--claimed', True, 'a service holds'),
        ('--free', False, 'no service holds'),
    ):
        either.add_argument(
            option,
            dest='is_claimed',
            action='store_const',
            const=value,
            help=f'only those that {who}',
        )


def _add_page_arguments(listing: argparse.ArgumentParser) -> None:
    listing.add_argument(
        '--sort',
        default='created_at',
        metavar='KEY[:DIRECTION],…',
        help='columns to sort by, each with asc or desc',
    )
    listing.add_argument('--limit', type=int, help='this many at most')
    listing.add_argument(
        '--marker', metavar='ID', help='those after the one with this id'
    )
    listing.add_argument(
        '--long',
        action='store_true',
        help='show metadata and tags, too; JSON always has them',
    )
