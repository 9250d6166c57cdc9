"""myservice-manage quota: limits of projects, and what they use."""

import argparse
import itertools
import sys
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from oslo_config import cfg

from myservice import context
from myservice import db
from myservice import exception
from myservice.cmd import common
from myservice.cmd import output
from myservice.cmd import parsers

_UNLIMITED = -1
_UNLIMITED_WORD = 'unlimited'

# The database is asked for this many projects at once.
_PAGE = 100

# Project to resource to column to recorded and counted.
_Differences = dict[str, dict[str, dict[str, dict[str, int]]]]


def quota_show(arguments: Any) -> None:
    """Show the limits of a project, its usage and its reservations."""
    usages = db.api.quota_usage_get_all(
        context.get_admin_context(), arguments.project_id
    )
    if arguments.json:
        output.print_json(usages)
        return
    output.print_table(
        ('Resource', 'Limit', 'In use', 'Reserved'),
        (
            (
                resource,
                _in_words(usage['limit']),
                usage['in_use'],
                usage['reserved'],
            )
            for resource, usage in usages.items()
        ),
    )


def quota_set(arguments: Any) -> None:
    """Give a project its own limit, or change it."""
    project_id, limit = arguments.project_id, _parsed(arguments.limit)
    admin = context.get_admin_context()
    db.api.quota_set(admin, project_id, arguments.resource, limit)
    _tell_limit(arguments, limit, project_id=project_id)


def quota_unset(arguments: Any) -> None:
    """Remove a project's own limit; the limit of the class applies again."""
    admin = context.get_admin_context()
    project_id = arguments.project_id
    db.api.quota_destroy(admin, project_id, arguments.resource)
    usages = db.api.quota_usage_get_all(admin, project_id)
    limit = usages.get(arguments.resource, {}).get('limit')
    _tell_limit(arguments, limit, project_id=project_id)


def quota_class_show(arguments: Any) -> None:
    """Show the limits of a quota class, and the defaults for the others."""
    limits = _limits_of_class(arguments)
    if arguments.json:
        output.print_json(limits)
        return
    output.print_table(
        ('Resource', 'Limit', 'Source'),
        (
            (resource, _in_words(found['limit']), found['source'])
            for resource, found in limits.items()
        ),
    )


def quota_class_set(arguments: Any) -> None:
    """Give a quota class a limit, or change it."""
    name, limit = arguments.class_name, _parsed(arguments.limit)
    admin = context.get_admin_context()
    db.api.quota_class_set(admin, name, arguments.resource, limit)
    _tell_limit(arguments, limit, class_name=name)


def quota_class_unset(arguments: Any) -> None:
    """Remove a limit of a quota class; [quota] default_limits applies."""
    admin = context.get_admin_context()
    db.api.quota_class_destroy(admin, arguments.class_name, arguments.resource)
    limit = db.api.quota_get_defaults(admin).get(arguments.resource)
    _tell_limit(arguments, limit, class_name=arguments.class_name)


def quota_check(arguments: Any) -> int:
    """Compare usages with what exists; exit code 1 if they differ."""
    differences: _Differences = {}
    _compare(arguments, db.api.quota_usage_check, differences)
    _tell_differences(arguments, differences)
    _tell_uncounted(arguments)
    return common.REFUSED if differences else common.DONE


def quota_sync(arguments: Any) -> None:
    """Set usages to what exists, and show what differed."""
    if bool(arguments.projects) == arguments.all:
        raise exception.InvalidInput(
            field='projects', reason='name projects or pass --all, not both'
        )
    corrected: _Differences = {}
    try:
        _compare(arguments, db.api.quota_usage_sync, corrected)
    except BaseException:
        # The corrections stay, and the next run could not show them.
        if corrected:
            _tell_differences(arguments, corrected)
        raise
    _tell_differences(arguments, corrected)
    _tell_uncounted(arguments)


def quota_expire(arguments: Any) -> None:
    """Give back reservations that are overdue."""
    expired = db.api.reservation_expire(context.get_admin_context())
    output.result(arguments, expired=expired)


def _parsed(limit: str) -> int:
    if limit == _UNLIMITED_WORD:
        return _UNLIMITED
    try:
        return int(limit)
    except ValueError as error:
        raise exception.InvalidInput(
            field='limit',
            reason=f'{limit!r:.100} is neither a number nor the word '
            f'{_UNLIMITED_WORD}',
        ) from error


def _in_words(limit: int | None) -> Any:
    return _UNLIMITED_WORD if limit == _UNLIMITED else limit


def _tell_limit(arguments: Any, limit: int | None, **owner: str) -> None:
    output.result(
        arguments,
        **owner,
        resource=arguments.resource,
        limit=limit if arguments.json else _in_words(limit),
    )


def _limits_of_class(arguments: Any) -> dict[str, dict[str, Any]]:
    quota = arguments.conf.quota
    name = arguments.class_name
    if name is None:
        name = quota.default_class
    admin = context.get_admin_context()
    rows = db.api.quota_class_get_all(admin, name, sort_keys=['resource'])
    # The default class may have no limit; any other name without a limit is
    # misspelt.
    if not rows and name != quota.default_class:
        raise exception.QuotaClassNotFound(
            class_name=name, resource='any resource'
        )
    return {
        resource: {
            'limit': limit,
            'source': 'default_limits'
            if resource in quota.default_limits
            else 'built in',
        }
        for resource, limit in db.api.quota_get_defaults(admin).items()
    } | {row.resource: {'limit': row.limit, 'source': 'class'} for row in rows}


def _compare(
    arguments: Any, function: Callable[..., Any], found: _Differences
) -> None:
    admin = context.get_admin_context()
    projects = iter(arguments.projects or _all_projects(admin))
    first = list(itertools.islice(projects, 2))
    total = len(arguments.projects) or None
    with _bar(len(first) > 1) as bar:
        for project_id in bar.track(itertools.chain(first, projects), total):
            differences = function(admin, project_id)
            if differences:
                found[project_id] = differences


def _all_projects(admin: context.RequestContext) -> Iterator[str]:
    marker = None
    while page := db.api.quota_usage_get_projects(admin, _PAGE, marker):
        yield from page
        marker = page[-1]


def _bar(is_wanted: bool) -> Any:
    from rich import console
    from rich import progress

    return progress.Progress(
        progress.TextColumn('Projects'),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        console=console.Console(stderr=True),
        transient=True,
        # Nothing is printed meanwhile, and the bar does not use stdout.
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not (is_wanted and sys.stderr.isatty()),
    )


def _tell_differences(arguments: Any, differences: _Differences) -> None:
    if arguments.json:
        output.print_json(differences)
        return
    output.print_table(
        ('Project', 'Resource', 'Column', 'Recorded', 'Counted'),
        (
            (project, resource, column, found['recorded'], found['counted'])
            for project, resources in differences.items()
            for resource, columns in resources.items()
            for column, found in columns.items()
        ),
    )


def _tell_uncounted(arguments: Any) -> None:
    # On stderr: the answer on stdout is for scripts.
    admin = context.get_admin_context()
    uncounted = {
        resource
        for project_id in arguments.projects or [None]
        for resource in db.api.quota_usage_get_uncounted(admin, project_id)
    }
    if uncounted:
        print(
            'These have no counter here, so their usage is not compared: '
            f'{output.printable(", ".join(sorted(uncounted)))}',
            file=sys.stderr,
        )


def add_parsers(groups: Any, conf: cfg.ConfigOpts) -> None:
    """Add the group to the command line.

    :param groups: the groups of the program
    :param conf: the configuration; it is read when a command runs
    """
    quotas = parsers.add_group(
        groups, 'quota', 'limits of projects, and what they use'
    )
    _add_project_parsers(quotas)
    _add_class_parsers(quotas, conf)
    parsers.add_command(quotas, 'expire', quota_expire)


def _add_project_parsers(quotas: Any) -> None:
    show = parsers.add_command(quotas, 'show', quota_show)
    change = parsers.add_command(quotas, 'set', quota_set)
    unset = parsers.add_command(quotas, 'unset', quota_unset)
    for command in (show, change, unset):
        command.add_argument(
            'project_id', metavar='PROJECT', help='the project'
        )
    _add_limit_arguments(change, unset)
    check = parsers.add_command(quotas, 'check', quota_check)
    sync = parsers.add_command(quotas, 'sync', quota_sync)
    for command, default in ((check, 'all by default'), (sync, 'or --all')):
        command.add_argument(
            'projects',
            nargs='*',
            metavar='PROJECT',
            help=f'the projects ({default})',
        )
    sync.add_argument('--all', action='store_true', help='all projects')


def _add_class_parsers(quotas: Any, conf: cfg.ConfigOpts) -> None:
    show = parsers.add_command(quotas, 'class-show', quota_class_show)
    change = parsers.add_command(quotas, 'class-set', quota_class_set)
    unset = parsers.add_command(quotas, 'class-unset', quota_class_unset)
    show.add_argument(
        'class_name',
        metavar='CLASS',
        nargs='?',
        help='the quota class; by default that of [quota] default_class',
    )
    for command in (change, unset):
        command.add_argument(
            'class_name', metavar='CLASS', help='the quota class'
        )
    _add_limit_arguments(change, unset)
    for command in (show, change, unset):
        command.set_defaults(conf=conf)


def _add_limit_arguments(
    change: argparse.ArgumentParser, unset: argparse.ArgumentParser
) -> None:
    for command in (change, unset):
        command.add_argument(
            'resource', metavar='RESOURCE', help='the resource'
        )
    change.add_argument(
        'limit', metavar='LIMIT', help=f'a number, or {_UNLIMITED_WORD}'
    )
