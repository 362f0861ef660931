"""demo/quickstart.ipynb: it runs, and is kept without outputs."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / 'demo' / 'quickstart.ipynb'
LENGTH = 'max_iters = 300'


def cells(kind):
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding='utf-8'))['cells'] if cell['cell_type'] == kind]


def test_notebook__outputs_are_cleared():
    for cell in cells('code'):
        assert cell['outputs'] == [] and cell['execution_count'] is None
        assert set(cell['metadata']) <= {'tags'}


def test_notebook__names_files_that_are_there():
    text = ''.join(line for cell in cells('markdown') for line in cell['source'])
    pages = [word for word in text.split('`') if word.startswith('docs/')]
    assert len(pages) >= 5 and all((ROOT / page).is_file() for page in pages)


@pytest.mark.slow
@pytest.mark.ci
def test_notebook__runs_with_short_trainings(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient')
    for package in ('ipykernel', 'matplotlib', 'mmpretrain.models', 'sklearn'):
        pytest.importorskip(package)
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = (cell for cell in notebook.cells if cell.source.startswith(LENGTH))
    cell.source = cell.source.replace(LENGTH, 'max_iters = 2')
    client = nbclient.NotebookClient(notebook, timeout=300, resources=dict(metadata=dict(path=str(tmp_path))))
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    printed = ''.join(output.get('text', '') for output in outputs)
    assert "head=dict(type='SARLinearClsHead')" in printed
    assert 'stock' in printed and 'SAR' in printed and 'accuracy' in printed
    pictures = [output for output in outputs if 'image/png' in output.get('data', {})]
    assert len(pictures) == 4  # digits, curves, and two of the comparison
