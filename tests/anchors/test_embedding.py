import os

import numpy as np
import pytest
import torch

import sar_mm  # noqa: F401
from sar_mm.anchors import EmbeddingAnchors
from sar_mm.registry import ANCHORS

TABLE = [[1.0, -2.0, 0.5, 4.0], [0.25, 3.0, -1.5, 0.0], [2.0, 2.0, 8.0, -0.125]]


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def save(path, array):
    np.save(str(path), array)
    return path


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64', '>f4'])
def test_embedding__reads_npy(tmp_path, dtype):
    path = save(tmp_path / 'names.npy', np.array(TABLE, dtype=dtype))
    if dtype == '>f4':  # no tensor has this byte order
        with pytest.raises(ValueError, match='`path`.*names.npy'):
            EmbeddingAnchors(path)(3, 7)
        return
    anchors = ANCHORS.build(dict(type='EmbeddingAnchors', path=str(path)))(3, 7)
    assert anchors.dtype == torch.float32
    assert anchors.tolist() == TABLE


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize('key', [None, 'names'])
def test_embedding__reads_safetensors(tmp_path, dtype, key):
    save_file = pytest.importorskip('safetensors.torch').save_file
    path = str(tmp_path / 'names.safetensors')
    save_file({'names': torch.tensor(TABLE, dtype=dtype)}, path)
    anchors = EmbeddingAnchors(path, key=key)(3, 7)
    assert anchors.dtype == torch.float32
    assert anchors.tolist() == TABLE


def test_embedding__picks_a_tensor_by_its_key(tmp_path):
    save_file = pytest.importorskip('safetensors.torch').save_file
    path = str(tmp_path / 'names.safetensors')
    save_file({'one': torch.zeros(3, 4), 'two': torch.tensor(TABLE)}, path)
    assert EmbeddingAnchors(path, key='two')(3, 4).tolist() == TABLE
    with pytest.raises(ValueError, match=r"`key`.*\['one', 'two'\].*but got None"):
        EmbeddingAnchors(path)(3, 4)
    with pytest.raises(ValueError, match=r"`key`.*\['one', 'two'\].*but got 'three'"):
        EmbeddingAnchors(path, key='three')(3, 4)


def test_embedding__refuses_a_broken_safetensors_file(tmp_path):
    pytest.importorskip('safetensors')
    path = tmp_path / 'names.safetensors'
    path.write_bytes(b'not a tensor')
    with pytest.raises(ValueError, match='`path`.*names.safetensors'):
        EmbeddingAnchors(path)(3, 4)


@pytest.mark.parametrize(
    ('array', 'match'),
    [
        (np.array(TABLE[:2]), r'\(3, D\).*float64 of shape \(2, 4\)'),
        (np.array(TABLE + TABLE), r'\(3, D\).*float64 of shape \(6, 4\)'),
        (np.array(TABLE[0][:3]), r'\(3, D\).*float64 of shape \(3,\)'),
        (np.array([TABLE]), r'\(3, D\).*float64 of shape \(1, 3, 4\)'),
        (np.zeros((3, 0)), r'\(3, D\).*float64 of shape \(3, 0\)'),
        (np.arange(12).reshape(3, 4), r'\(3, D\).*int64 of shape \(3, 4\)'),
        (np.zeros((3, 4), dtype=bool), r'\(3, D\).*bool of shape \(3, 4\)'),
        (np.array([[1, 2], [3, np.nan], [5, 6]]), 'NaN or infinite'),
        (np.array([[1, 2], [3, np.inf], [5, 6]]), 'NaN or infinite'),
        (np.array([['a'], ['b'], ['c']]), '.npy file with a plain matrix'),
    ],
)
def test_embedding__refuses_another_matrix(tmp_path, array, match):
    path = save(tmp_path / 'names.npy', array)
    with pytest.raises(ValueError, match='`path`.*' + match) as error:
        EmbeddingAnchors(path)(3, 4)
    assert 'names.npy' in str(error.value)


def test_embedding__refuses_and_never_unpickles_objects(tmp_path):
    mark = tmp_path / 'unpickled'
    path = tmp_path / 'names.npy'
    np.save(str(path), np.array([[Trap(str(mark))]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match='`path`.*pickled objects are refused.*names.npy'):
        EmbeddingAnchors(path)(2, 4)
    assert not mark.exists()
    np.load(str(path), allow_pickle=True)  # the trap does work
    assert mark.exists()


@pytest.mark.parametrize('content', [b'', b'\x93NUMPY', b'plain text', b'\x80\x04N.'])
def test_embedding__refuses_a_broken_npy_file(tmp_path, content):
    path = tmp_path / 'names.npy'
    path.write_bytes(content)
    with pytest.raises(ValueError, match='`path`.*names.npy'):
        EmbeddingAnchors(path)(3, 4)


@pytest.mark.parametrize('name', ['names.pth', 'names.npz', 'names'])
def test_embedding__refuses_another_suffix(tmp_path, name):
    (tmp_path / name).write_bytes(b'')
    with pytest.raises(ValueError, match='`path`.*.npy or .safetensors.*' + name):
        EmbeddingAnchors(tmp_path / name)


@pytest.mark.parametrize('name', ['names.npy', 'names.safetensors'])
def test_embedding__names_a_missing_file_when_the_anchors_are_made(tmp_path, name):
    anchors = EmbeddingAnchors(tmp_path / name)
    with pytest.raises(FileNotFoundError, match='`path`.*' + name):
        anchors(3, 4)
