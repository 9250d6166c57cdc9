"""Lets the documentation be built from sources without git.

reno reads from git which release a note belongs to. A tree without git, as an
unpacked sdist, has the notes and not their releases.
"""

import pathlib
from typing import Any

from docutils import nodes
from dulwich import errors
from dulwich import repo
from reno import sphinxext

_ROOT = str(pathlib.Path(__file__).parents[2])

_TEXT = (
    'These sources have no git history, which says to which release a note '
    'belongs. The notes are in the directory releasenotes/notes.'
)


class ReleaseNotes(sphinxext.ReleaseNotesDirective):
    """reno's directive, or a sentence where there is no git."""

    def run(self) -> list[Any]:
        """Return the notes, by release."""
        self.options.setdefault('reporoot', _ROOT)
        try:
            repo.Repo.discover(_ROOT).close()
        except errors.NotGitRepository:
            return [nodes.paragraph('', _TEXT)]
        found: list[Any] = super().run()
        return found


def setup(app: Any) -> dict[str, bool]:
    """Extend Sphinx."""
    app.add_directive('release-notes', ReleaseNotes)
    return {'parallel_read_safe': True}
