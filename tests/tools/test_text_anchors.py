"""Text anchors with a small encoder in the place of sentence-transformers'."""

import functools
import re
import runpy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from sar_mm.anchors import EmbeddingAnchors

SCRIPT = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'text_anchors.py'
VECTORS = {'cat': [3, 4, 0], 'dog': [4, 3, 0], 'tom cat': [3, 4.1, 0], 'big dog': [4, 3.2, 0], 'car': [0, 0, 2]}


class Encoder:
    texts = []

    def __init__(self, name, **kwargs):
        if name == 'absent':
            raise OSError('absent is not a model\nand more lines')

    def encode(self, texts, normalize_embeddings, **kwargs):
        Encoder.texts = list(texts)
        vectors = [VECTORS.get(text.lower().replace('a photo of a ', '')) for text in texts]
        vectors = [
            np.random.default_rng(i).normal(size=3) if vector is None else vector for i, vector in enumerate(vectors)
        ]
        vectors = np.array(vectors, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True) if normalize_embeddings else vectors


@pytest.fixture
def run(run_tool, monkeypatch, tmp_path):
    """Run the tool in an empty folder; return what it prints."""
    module = types.ModuleType('sentence_transformers')
    module.SentenceTransformer = Encoder
    monkeypatch.setitem(sys.modules, 'sentence_transformers', module)
    monkeypatch.chdir(tmp_path)
    return functools.partial(run_tool, SCRIPT)


@pytest.fixture(scope='module')
def tool():
    return types.SimpleNamespace(**runpy.run_path(str(SCRIPT)))


@pytest.mark.parametrize('out', ['anchors.npy', 'sub/anchors.safetensors'])
def test_text_anchors__are_what_embedding_anchors_reads(run, out):
    if out.endswith('.safetensors'):
        pytest.importorskip('safetensors')
    printed = run('--classes', 'cat, car,dog', '--out', out)
    assert f'{out}: 3 classes, 3 dimensions' in printed
    assert Encoder.texts == ['a photo of a cat', 'a photo of a car', 'a photo of a dog']
    expected = torch.tensor([[0.6, 0.8, 0], [0, 0, 1], [0.8, 0.6, 0]])
    torch.testing.assert_close(EmbeddingAnchors(out)(3, 64), expected)


def test_text_anchors__prints_the_closest_and_farthest_pairs(run):
    printed = run('--classes', 'cat,dog,car,tom_cat')
    closest, farthest = printed.split('farthest:')
    # Four classes have six pairs, of which either list has five.
    pair = re.compile(r'([\d.-]+)  (\w+) - (\w+)')
    assert pair.findall(closest)[0] == ('1.000', 'cat', 'tom_cat')
    assert ('0.960', 'cat', 'dog') in pair.findall(closest)
    assert [value for value, _, _ in pair.findall(farthest)[:3]] == ['0.000'] * 3
    assert all('car' in names for _, *names in pair.findall(farthest)[:3])


@pytest.mark.parametrize('count', [2, 120])
def test_text_anchors__draws_a_figure(run, tmp_path, count):
    image = pytest.importorskip('matplotlib.image')
    pytest.importorskip('scipy')
    run('--classes', ','.join(f'class{k}' for k in range(count)), '--figure', 'sub/cosines.png')
    pixels = image.imread(tmp_path / 'sub' / 'cosines.png')
    assert min(pixels.shape[:2]) >= 900 and len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20


def test_closeness_order__puts_close_classes_side_by_side(tool):
    pytest.importorskip('scipy')
    names = ['cat', 'car', 'dog', 'tom cat', 'big dog']
    vectors = np.array([VECTORS[name] for name in names], dtype=float)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = [names[k] for k in tool.closeness_order(vectors @ vectors.T)]
    assert sorted(order) == sorted(names)
    assert abs(order.index('cat') - order.index('tom cat')) == 1
    assert abs(order.index('dog') - order.index('big dog')) == 1
    assert order.index('car') in (0, 4)


@pytest.mark.parametrize(
    ('name', 'words'),
    [
        ('SignSymbol', 'Sign Symbol'),
        ('traffic_light', 'traffic light'),
        ('T-shirt/top', 'T-shirt/top'),
        ('TV monitor', 'TV monitor'),
    ],
)
def test_as_words(tool, name, words):
    assert tool.as_words(name) == words


def config(dataset, scope):
    return f'default_scope = {scope!r}\ntrain_dataloader = dict(dataset={dataset})\n'


@pytest.mark.parametrize(
    ('scope', 'dataset', 'number', 'first'),
    [
        ('mmpretrain', "dict(type='FashionMNIST', data_root='absent', pipeline=[])", 10, 'T-shirt/top'),
        ('mmpretrain', "dict(type='RepeatDataset', times=2, dataset=dict(type='CIFAR100'))", 100, 'apple'),
        ('mmpretrain', "dict(type='CustomDataset', metainfo=dict(classes=['cat', 'car']))", 2, 'cat'),
        ('mmpretrain', "dict(type='CustomDataset', classes='names.txt')", 3, 'dog'),
        ('mmpretrain', "dict(type='CustomDataset', data_root='images', pipeline=[dict(type='NoSuch')])", 2, 'car'),
        ('mmseg', "dict(type='CityscapesDataset', data_root='absent')", 19, 'road'),
        ('mmseg', "dict(type='ConcatDataset', datasets=[dict(type='ADE20KDataset')] * 2)", 150, 'wall'),
        ('mmpretrain', "dict(type='mmseg.BaseSegDataset', metainfo=dict(classes=('car', 'dog')))", 2, 'car'),
    ],
)
def test_config_classes(tool, tmp_path, monkeypatch, scope, dataset, number, first):
    for toolbox in {scope, 'mmseg' if 'mmseg.' in dataset else scope}:
        pytest.importorskip(f'{toolbox}.datasets')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'names.txt').write_text('dog\ncat\ncar\n')
    for name in ('car', 'cat'):
        (tmp_path / 'images' / name).mkdir(parents=True)
        (tmp_path / 'images' / name / '0.jpg').write_bytes(b'never read')
    (tmp_path / 'config.py').write_text(config(dataset, scope))
    classes = tool.config_classes('config.py')
    assert len(classes) == number and classes[0] == first


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_text_anchors__reads_names_from_a_file(run, tmp_path, encoding):
    (tmp_path / 'names.txt').write_text('tench, Tinca tinca\ncat\n', encoding=encoding)
    run('--classes', 'names.txt', '--template', '{}!')
    assert Encoder.texts == ['tench, Tinca tinca!', 'cat!']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'one of the arguments CONFIG --classes is required'),
        (['absent.py'], 'there is no config absent.py'),
        (['--classes', 'absent.txt'], 'absent.txt'),
        (['empty.py'], 'config empty.py has no train_dataloader.dataset'),
        (['unknown.py'], 'the data set NoSuch of config unknown.py is not registered'),
        (['--classes', 'cat'], "two or more classes, but got ['cat']"),
        (['--classes', 'cat,,dog'], 'two or more classes'),
        (['--classes', 'cat,car,Cat'], "classes 0 and 2, 'cat' and 'Cat', are the same to this encoder"),
        (['--classes', 'cat,dog', '--template', 'a photo'], '--template needs {} where the class name goes'),
        (['--classes', 'cat,dog', '--out', 'anchors.pth'], '--out is to be a .npy or .safetensors file'),
        (['--classes', 'cat,dog', '--model', 'absent'], '--model absent cannot be loaded: absent is not a model\n'),
    ],
)
def test_text_anchors__typing_errors_get_a_message(run, tmp_path, arguments, message):
    (tmp_path / 'empty.py').write_text('a = 1\n')
    (tmp_path / 'unknown.py').write_text(config("dict(type='NoSuch')", 'mmengine'))
    assert message in run(*arguments, code=2)
    assert not list(tmp_path.glob('anchors*'))


def test_text_anchors__says_how_to_install_the_encoder(run, monkeypatch):
    monkeypatch.setitem(sys.modules, 'sentence_transformers', None)
    assert '`pip install sentence-transformers`' in run('--classes', 'cat,dog', code=2)
