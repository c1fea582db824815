"""The documentation site: ``python -m sphinx -W -b html notebooks build/site`` builds it."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # the package of this checkout, and the extensions in _site

from globopt_jax import __version__

project = "globopt_jax"
author = "the globopt_jax authors"
project_copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "_site.reference",
    "_site.theorems",
]
exclude_patterns = ["conf.py", "_site", "images"]
# The notebooks are percent scripts. The build executes those that changed since the last build, which takes minutes, so
# that their pages show what they compute; -D nb_execution_mode=off leaves that out.
nb_custom_formats = {".py": "_site.percent.read"}
nb_execution_mode = "cache"
nb_execution_timeout = 1800
nb_execution_raise_on_error = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# A single backtick of a docstring names an object of the package where there is one, and is code where there is none.
default_role = "py:obj"
highlight_language = "none"  # of formulas

autodoc_default_options = {"member-order": "bysource"}
autodoc_typehints = "signature"
napoleon_custom_sections = [("Reference", "References")]
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of a class are described where they stand
napoleon_include_init_with_doc = False
python_maximum_signature_line_length = 88

# A name such as `reason` in a docstring may be that of several results; it is shown as code then, without a link.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"globopt_jax {__version__}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
