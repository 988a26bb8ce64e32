"""How Sphinx builds these pages: MyST for the text, autodoc for the reference.

Build with `sphinx-build -W docs docs/_build`; `.ci/run` does, and fails on any warning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pygments.lexers.special import TextLexer

from anyscheduler import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "anyscheduler"
author = "The anyscheduler authors"
copyright = f"2026, {author}"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

# Headings can be linked to, as `usage.md#leases`.
myst_heading_anchors = 3

# The docstrings say `name` as Markdown does; reStructuredText would set it in italics.
default_role = "code"
# Parameters stand in the order in which the source gives them, options in groups that belong together.
autodoc_member_order = "bysource"
# Types stand once, in the signature; without the module that a name comes from, which users do not import it from.
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
# One parameter a line where a signature would not fit into one.
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
# Attributes as a list inside the class. As entries of their own they would meet those that autodoc makes.
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"anyscheduler {release}"
# Nothing is linked to a copy of the sources that the pages would carry along.
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Shows what is typed into redis-cli as it is; Pygments has no language for it."""
    app.add_lexer("redis", TextLexer)
