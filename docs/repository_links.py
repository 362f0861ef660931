"""Sphinx extension: links to the rest of the repository, which GitHub resolves, work on the site, too.

MyST turns a link to a file into a download, but not if it is a Markdown file or a folder. Here, the READMEs of the
configs become pages, and a link to one of them, or to its folder, leads to its page. Other Markdown files outside of
docs/ are downloads, and a link to any other folder becomes its text.
"""

import os
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
INCLUDE = '```{{include}} {readme}\n:relative-docs: .\n```\n'  # links that begin with a dot are those of the README


def readme_pages() -> dict:
    """Return the README of every page made of one, by the name of the page, such as 'configs/long_tailed/camvid'."""
    return {file.parent.relative_to(ROOT).as_posix(): file for file in sorted((ROOT / 'configs').rglob('README.md'))}


def write_readme_pages(app: Sphinx) -> None:
    """Write a page for each README, which includes it."""
    for name, readme in readme_pages().items():
        page = Path(app.srcdir, f'{name}.md')
        page.parent.mkdir(parents=True, exist_ok=True)
        text = INCLUDE.format(readme=Path(os.path.relpath(readme, page.parent)).as_posix())
        if not page.is_file() or page.read_text() != text:
            page.write_text(text)


def resolve_links(app: Sphinx, doctree: nodes.document) -> None:
    """Point links to READMEs and folders to their pages."""
    pages = readme_pages()
    for link in list(doctree.findall(addnodes.pending_xref)):
        if link.get('reftype') != 'myst':
            continue
        target, is_page = link['reftarget'], link['refdomain'] == 'doc'
        # Sphinx counts pages from the folder of its sources, other targets from the page.
        start = app.srcdir if is_page else Path(app.srcdir, link['refdoc']).parent
        path = Path(os.path.normpath(Path(start, target)))
        folder = path.parent if is_page and path.name == 'README' else path
        name = Path(os.path.relpath(folder, ROOT)).as_posix()
        if name in pages:
            link['refdomain'], link['reftarget'], link['reftargetid'] = 'doc', name, None
        elif is_page and Path(f'{path}.md').is_file() and not path.is_relative_to(app.srcdir):
            file = os.path.relpath(f'{path}.md', Path(app.srcdir, link['refdoc']).parent)
            download = addnodes.download_reference('', '', reftarget=file, refdoc=link['refdoc'])
            link.replace_self(download)
            download += link.children
        elif folder.is_dir():
            link.replace_self(link.children)


def setup(app: Sphinx) -> dict:
    app.connect('builder-inited', write_readme_pages)
    app.connect('doctree-read', resolve_links, priority=400)  # before Sphinx collects downloads
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
