"""Lets the tests here import the helpers next to them, and makes folders of images."""

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parent))


@pytest.fixture
def folders(tmp_path):
    """4 labeled images of the values 0, 1, ... and 6 unlabeled ones of 100, 101, ..."""
    for name, first, number in (('labeled', 0, 4), ('unlabeled', 100, 6)):
        (tmp_path / name).mkdir()
        for index in range(number):
            Image.new('RGB', (4, 4), (first + index,) * 3).save(tmp_path / name / f'{index}.png')
    return tmp_path
