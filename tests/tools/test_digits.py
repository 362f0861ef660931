import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'digits.py'


def digest(folder):
    content = hashlib.sha256()
    for path in sorted(folder.rglob('*.png')):
        content.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return content.hexdigest()


@pytest.fixture
def data(digits):
    return digits / 'digits'


def test_digits__classification_is_long_tailed_and_tested_evenly(data):
    def count(split):
        return [len(list((data / 'classification' / split / str(k)).glob('*.png'))) for k in range(10)]

    assert count('train') == [int(120 * 50 ** (-k / 9)) for k in range(10)] == [120, 77, 50, 32, 21, 13, 8, 5, 3, 2]
    assert count('test') == [54] * 10
    assert count('train_balanced') == [120] * 10


def test_digits__no_digit_is_in_training_and_test(data):
    def images(split):
        return {path.read_bytes() for path in (data / 'classification' / split).rglob('*.png')}

    assert not images('train_balanced') & images('test')
    assert images('train') < images('train_balanced')
    assert Image.open(next((data / 'classification' / 'train' / '3').iterdir())).size == (8, 8)


def test_digits__long_tailed_images_are_those_of_the_same_name_in_the_balanced_pool(data):
    folder = data / 'classification'
    for path in (folder / 'train').rglob('*.png'):
        assert path.read_bytes() == (folder / 'train_balanced' / path.relative_to(folder / 'train')).read_bytes()


def test_digits__scenes_have_labels_of_their_size(data):
    for split, scenes in (('train', 279), ('val', 100)):
        images = sorted((data / 'segmentation' / 'img_dir' / split).iterdir())
        labels = sorted((data / 'segmentation' / 'ann_dir' / split).iterdir())
        assert [path.name for path in images] == [path.name for path in labels]
        assert len(images) == scenes
        assert all(Image.open(path).size == (64, 64) and Image.open(path).mode == 'RGB' for path in images)


def test_digits__pixels_are_long_tailed_in_training_and_even_in_validation(data):
    pixels = {}
    for split in ('train', 'val'):
        folder = data / 'segmentation' / 'ann_dir' / split
        pixels[split] = sum(np.bincount(np.asarray(Image.open(p)).ravel(), minlength=11) for p in folder.iterdir())
        assert len(pixels[split]) == 11
    assert pixels['train'][0] > 30 * pixels['train'][9] > 0
    assert pixels['val'][:10].max() < 2 * pixels['val'][:10].min()
    assert pixels['train'].argmax() == pixels['val'].argmax() == 10


def test_digits__another_process_writes_the_same(data, run_process, tmp_path):
    run_process(SCRIPT, '--out', 'other', folder=tmp_path)
    assert digest(tmp_path / 'other') == digest(data)
