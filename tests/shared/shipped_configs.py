"""The configs in configs/, read once."""

import copy
from functools import lru_cache
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


@lru_cache(maxsize=None)
def read_once(path):
    return Config.fromfile(path)


def read(path):
    try:
        return copy.deepcopy(read_once(path))
    except ModuleNotFoundError as error:  # one of the toolboxes
        pytest.skip(str(error))
