"""Settings of the documentation site: `make site`."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))  # repository_links.py
sys.path.insert(0, str(DOCS.parent))  # the sar_mm of this clone

project = 'sar_mm'
author = copyright = 'The sar_mm contributors'
release = re.search(r"'(.+)'", (DOCS.parent / 'sar_mm' / 'version.py').read_text())[1]

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.intersphinx',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'repository_links',
]
exclude_patterns = ['_build']

# Links such as results.md#short-trainings: an anchor for every heading that a page of this site has.
myst_heading_anchors = 4
myst_enable_extensions = ['dollarmath']

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# The empty inventory stands in for one that cannot be reached: names of that library are then no links.
intersphinx_mapping = {
    'mmengine': ('https://mmengine.readthedocs.io/en/latest', (None, 'empty.inv')),
    'torch': ('https://docs.pytorch.org/docs/stable', (None, 'empty.inv')),
}
intersphinx_timeout = 5

html_theme = 'furo'
html_title = f'sar_mm {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
