"""How Sphinx builds the documentation: ``tox -e docs``."""

project = 'myservice'
copyright = 'myservice developers'

extensions = [
    'openstackdocstheme',
    'oslo_config.sphinxext',
    'sphinx.ext.autodoc',
]
# transactions.rst includes it.
exclude_patterns = ['contributor/fault-matrix.rst']
# The guide leaves parts of statements out, by "…", which is no SQL.
suppress_warnings = ['misc.highlighting_failure']

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
# It would be 0.0.1.devN: another one, and all pages anew, with each commit.
openstackdocs_auto_version = False
