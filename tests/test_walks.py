"""Pages that explain options, symptoms and the method say what the code says."""

import ast
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

from sar_mm.registry import HOOKS, MODELS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
# Messages of other packages, by the file that has them; None: they come from compiled code.
OTHERS = {
    'MMCV==': 'mmpretrain/__init__.py',
    'registry': 'mmengine/registry/build_functions.py',
    'persistent_workers option': 'torch/utils/data/dataloader.py',
    'more than 1 value per channel': 'torch/nn/functional.py',
    'size mismatch for': 'torch/nn/modules/module.py',
    'rather than': 'mmcv/cnn/bricks/transformer.py',
    'environment variable for each process': 'mmengine/utils/dl_utils/setup_env.py',
    'ignore the certain label': 'mmseg/models/losses/cross_entropy_loss.py',
    'The draw is False': 'mmseg/engine/hooks/visualization_hook.py',
    'The prefix is not set': 'mmengine/evaluator/metric.py',
    'FileClient': 'mmengine/fileio/file_client.py',
    'HardDiskBackend': 'mmengine/fileio/file_client.py',
    'Detected call of': 'mmengine/optim/scheduler/param_scheduler.py',
    'forward_sync_buffers': None,  # of new versions of PyTorch
    'mmsegmentation is not installed': None,  # the name is filled in
    'Weights only load failed': None,
    'finished reduction': None,
    'device-side assert': None,
    'out of memory': None,
}


def read(name):
    return (DOCS / f'{name}.md').read_text(encoding='utf-8')


def texts(path):
    """Return the strings in a Python file, with `...` where values are filled in."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.JoinedStr):
            yield ''.join(part.value if isinstance(part, ast.Constant) else '...' for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@lru_cache(maxsize=None)
def own_texts():
    return [text for folder in ('sar_mm', 'tools') for path in (ROOT / folder).rglob('*.py') for text in texts(path)]


def is_in(quote, all_texts):
    """Whether the parts of a quote between `...` are, in their order, in one string."""
    pattern = re.compile('.*'.join(map(re.escape, quote.split('...'))), re.DOTALL)
    return any(pattern.search(text) for text in all_texts)


def messages():
    """Return what the first columns of the tables quote: in backticks, and of several words."""
    cells = re.findall(r'^\| (?!symptom|---)(.*?) \|', read('troubleshooting'), re.MULTILINE)
    return [quote for cell in cells for quote in re.findall(r'`([^`]+)`', cell) if ' ' in quote]


@pytest.mark.parametrize('quote', messages())
def test_troubleshooting__messages_are_those_of_the_code(quote):
    other = next((name for name in OTHERS if name in quote), None)
    if other is None:
        assert is_in(quote, own_texts())
    elif OTHERS[other] is not None:
        package, file = OTHERS[other].split('/', 1)
        if find_spec(package) is None:
            pytest.skip(f'{package} is not installed')
        assert is_in(quote, texts(Path(find_spec(package).origin).parent / file))


def test_troubleshooting__a_message_that_nobody_prints_is_found():
    assert len(messages()) > 25
    assert not is_in('... gives no batches', own_texts())


def test_choosing_options__snippets_build():
    pytest.importorskip('mmpretrain.models')
    count = 0
    for block in re.findall(r'^```python\n(.*?)^```', read('choosing_options'), re.DOTALL | re.MULTILINE):
        names = {}
        exec(block, names)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            if 'anchor_head' in names:
                options = names['anchor_head']
                if 'path' in options.get('anchors', {}):
                    options['anchors'].update(path=str(ROOT / options['anchors']['path']))
                head = dict(type='SARLinearClsHead', anchor_head=options)
                assert MODELS.build(dict(num_classes=10, in_channels=8, **head)).anchor_head.num_classes == 10
            elif 'head' in names:
                MODELS.build(dict(num_classes=10, in_channels=8, **names['head']))
            for hook in names.get('custom_hooks', []):
                HOOKS.build(hook)
        count += 1
    assert count >= 9


@pytest.mark.parametrize('name', ['choosing_options', 'method'])
def test_figures__are_those_of_the_results(name):
    page, results = (' '.join(text.split()) for text in (read(name), read('results')))
    figures = set(re.findall(r'\d+\.\d ± \d+\.\d', page))
    assert len(figures) >= 5
    assert sorted(figure for figure in figures if figure not in results) == []


@pytest.mark.parametrize(
    'name', ['own_data_segmentation', 'own_data_classification', 'choosing_options', 'troubleshooting', 'method']
)
def test_links__within_the_docs_have_their_headings(name):
    for target in re.findall(r'\]\(([^)]+)\)', read(name)):
        file, _, anchor = target.partition('#')
        if '://' in target or not (DOCS / file).exists():
            continue
        page = (DOCS / (file or f'{name}.md')).read_text(encoding='utf-8') if anchor else ''
        headings = [re.sub(r'[^\w\- ]', '', line.strip('# ').lower()) for line in page.splitlines() if line[:1] == '#']
        assert not anchor or anchor in [heading.replace(' ', '-') for heading in headings], target
