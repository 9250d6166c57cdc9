"""myservice-manage: the command line of operators.

A command imports by itself what only it needs, as alembic. So the others, and
--help, start in two thirds of the time.
"""

import logging
import sys
from typing import Any

from oslo_config import cfg

from myservice.cmd import common
from myservice.cmd import manage_quota
from myservice.cmd import manage_resource
from myservice.cmd import manage_service
from myservice.cmd import output
from myservice.cmd import parsers

PROGRAM = 'myservice-manage'


def db_sync(arguments: Any) -> None:
    """Create the tables, or bring them up to a revision."""
    from myservice.db import migration

    migration.sync(arguments.revision)
    output.result(arguments, revision=migration.current())


def db_version(arguments: Any) -> None:
    """Show the revision of the tables, and the newest of this release."""
    from myservice.db import migration

    output.result(
        arguments, revision=migration.current(), head=migration.head()
    )


def db_check(arguments: Any) -> int:
    """Compare the tables with the models; exit code 1 if they differ."""
    from myservice.db import migration

    difference = migration.check()
    output.result(
        arguments, differs=difference is not None, difference=difference
    )
    return common.DONE if difference is None else common.REFUSED


def db_revision(arguments: Any) -> None:
    """Write a migration from the tables to the models (for developers)."""
    from myservice.db import migration

    output.result(arguments, script=migration.revision(arguments.message))


def config_sample(arguments: Any) -> None:
    """Print a sample configuration file with every option."""
    from oslo_config import generator

    generator.main(['--namespace', 'myservice', '--namespace', 'oslo.log'])


def _add_database_parsers(groups: Any) -> None:
    database = parsers.add_group(groups, 'db', 'the schema of the database')
    sync = parsers.add_command(database, 'sync', db_sync)
    sync.add_argument(
        'revision', nargs='?', default='head', help='by default the newest'
    )
    parsers.add_command(database, 'version', db_version)
    parsers.add_command(database, 'check', db_check)
    revision = parsers.add_command(database, 'revision', db_revision)
    revision.add_argument(
        '-m', '--message', required=True, help='what the migration does'
    )


def _add_configuration_parsers(groups: Any) -> None:
    config = parsers.add_group(groups, 'config', 'configuration files')
    parsers.add_command(config, 'sample', config_sample)


def _register(conf: cfg.ConfigOpts) -> None:
    def add_parsers(groups: Any) -> None:
        _add_database_parsers(groups)
        manage_service.add_parsers(groups)
        manage_quota.add_parsers(groups, conf)
        manage_resource.add_parsers(groups)
        _add_configuration_parsers(groups)

    command = cfg.SubCommandOpt(
        'command',
        title='groups of commands',
        description='Options of the whole program, such as --config-file, '
        'come before the group. ' + parsers.CODES,
        handler=add_parsers,
    )
    debug = cfg.BoolOpt(
        'debug', short='d', default=False, help='Show what is done.'
    )
    conf.register_cli_opts([command, debug])


def main(argv: list[str] | None = None) -> int:
    """Run the command that the command line names."""

    def body() -> int | None:
        conf = common.start(PROGRAM, argv, _register)
        if conf.debug:
            logging.basicConfig(level=logging.DEBUG)
        else:
            # The line at the end repeats what libraries warn about.
            logging.getLogger().addHandler(logging.NullHandler())
        # An operator wants to hear at once that there is no server.
        conf.set_default('db_max_retries', 2, group='database')
        code: int | None = conf.command.function(conf.command)
        return code

    return common.run(PROGRAM, body)


if __name__ == '__main__':
    sys.exit(main())
