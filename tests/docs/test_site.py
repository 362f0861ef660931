"""The documentation site: no warning, no broken link, every public name. `make site` builds it."""

import importlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from sar_mm import registry
from sar_mm.models.heads import RefusedHead, SARHeadMixin

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.ci]
PACKAGES = ('anchors', 'ops', 'models', 'models.heads', 'models.losses', 'models.backbones', 'models.semi', 'datasets')
PACKAGES += ('engine.hooks', 'evaluation', 'baselines', 'analysis')
REGISTRIES = ('MODELS', 'DATASETS', 'DATA_SAMPLERS', 'TRANSFORMS', 'HOOKS', 'LOOPS', 'RUNNERS', 'METRICS', 'ANCHORS')


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, file):
        super().__init__()
        self.links, self.anchors = [], {''}
        self.feed(file.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ('id', 'name') if attrs.get(name)}
        self.links += [attrs[name] for name in ('href', 'src') if attrs.get(name)]


def test_site__internal_links_resolve(site):
    pages = {file.resolve(): Page(file) for file in site.rglob('*.html')}
    assert len(pages) > 50
    broken, number = [], 0
    for file, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            number += 1
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            known = target not in pages or unquote(parts.fragment) in pages[target].anchors
            if not target.is_file() or not known:
                broken.append(f'{file.name}: {link}')
    assert number > 1000
    assert broken == []


def test_site__links_to_the_repository_lead_somewhere(site):
    segmentation = Page(site / 'segmentation.html').links
    assert 'configs/segmentation/hrnet.html' in segmentation  # from ../configs/segmentation/hrnet/README.md
    downloads = [link for link in Page(site / 'add_anchors.html').links if '_downloads' in link]
    assert {Path(link).name for link in downloads} >= {'base.py', 'simplex_etf.py'}
    assert any('_downloads' in link and link.endswith('CHANGELOG.md') for link in Page(site / 'index.html').links)
    readme = Page(site / 'configs' / 'noisy_labels.html').links
    assert 'long_tailed/fashion_mnist.html' in readme
    assert any(link.endswith('resnet8_1xb128-4k_fashion-mnist-sym20.py') for link in readme)


def public_names():
    for package in PACKAGES:
        module = importlib.import_module(f'sar_mm.{package}')
        yield from (name for name in module.__all__ if not name.startswith('_'))
    for name in REGISTRIES:
        for kind, module in getattr(registry, name).module_dict.items():
            of_ours = getattr(module, '__module__', '').startswith('sar_mm.')
            # The SAR versions of the stock heads are in the tables of docs/heads.md.
            made = isinstance(module, type) and issubclass(module, (RefusedHead, SARHeadMixin))
            if of_ours and not made:
                yield kind


def test_api__has_every_public_name(site):
    from sphinx.util.inventory import InventoryFile

    inventory = InventoryFile.loads((site / 'objects.inv').read_bytes(), uri='')
    documented = {name.split('.')[-1] for kind in ('py:class', 'py:function') for name in inventory.data[kind]}
    names = set(public_names())
    assert len(names) > 70
    assert sorted(names - documented) == [], 'add them to docs/api'


def test_api__docstrings_are_rendered(site):
    for page in (site / 'api').glob('*.html'):
        text = re.sub(r'<pre>.*?</pre>', '', page.read_text(encoding='utf-8'), flags=re.DOTALL)
        assert not re.search(r'>\s*(Args|Returns|Raises):', text), page.name
        assert 'problematic' not in text, page.name
    head = (site / 'api' / 'anchor_head.html').read_text(encoding='utf-8')
    assert 'Parameters' in head and '<strong>gate_threshold</strong>' in head
