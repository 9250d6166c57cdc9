"""How Sphinx builds the documentation: ``tox -e docs``."""

import pathlib
import sys
from typing import Any
from typing import ClassVar

from pygments import token
from pygments.lexers import sql

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'ext'))

project = 'myservice'
copyright = 'myservice developers'

extensions = [
    'command_line',
    'notes_without_git',
    'openstackdocstheme',
    'oslo_config.sphinxconfiggen',
    'oslo_config.sphinxext',
    'sphinx.ext.autodoc',
]
# transactions.rst includes it.
exclude_patterns = ['contributor/fault-matrix.rst']

# It writes _static/myservice.conf.sample.
config_generator_config_file = [
    ('../config-generator.conf', '_static/myservice')
]

# Not for dashes: "--json" is not a dash.
smartquotes_action = 'qe'

autodoc_member_order = 'bysource'
python_maximum_signature_line_length = 79

html_theme = 'openstackdocs'
html_theme_options = {
    # By default it reports readers to Google Analytics.
    'analytics_tracking_code': '',
    'display_badge': False,
    'sidebar_search': True,
}
openstackdocs_auto_name = False
# It would be 0.0.1.devN, so each commit would rebuild all pages.
openstackdocs_auto_version = False


class Statements(sql.SqlLexer):
    """Statements that are sent to a server; "…" stands for omitted parts."""

    tokens: ClassVar[dict[str, Any]] = sql.SqlLexer.tokens | {
        'root': [(r'[…\\]', token.Punctuation), *sql.SqlLexer.tokens['root']]
    }


def setup(app: Any) -> None:
    """Extend Sphinx."""
    app.add_lexer('sql', Statements)
