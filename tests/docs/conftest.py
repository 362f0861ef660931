import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    """The folder of the documentation site, built as `make site` does."""
    for package in ('sphinx', 'myst_parser', 'furo'):
        pytest.importorskip(package, reason='make site installs it')
    for toolbox in ('mmseg', 'mmpretrain'):
        pytest.importorskip(f'{toolbox}.models', reason='the API reference has classes that need it')
    folder = tmp_path_factory.mktemp('site')
    command = [
        sys.executable,
        '-m',
        'sphinx',
        '-q',
        '-W',
        '--keep-going',
        '-b',
        'html',
        str(ROOT / 'docs'),
        str(folder),
    ]
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-5000:]
    return folder
