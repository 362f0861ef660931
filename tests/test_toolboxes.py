"""A toolbox that cannot be imported, and configs with bases in the toolboxes or in this package."""

import importlib
from pathlib import Path

import pytest
from mmengine.config import Config

import sar_mm
from sar_mm import toolboxes


@pytest.mark.parametrize(
    'toolbox, other, error',
    [
        ('mmseg', 'SARLinearClsHead', 'AttributeError'),
        ('mmseg', 'SARLinearClsHead', 'ImportError'),
        ('mmpretrain', 'SARFCNHead', 'KeyError'),
        ('mmpretrain', 'SARFCNHead', 'OSError'),
    ],
)
def test_import__with_a_broken_toolbox(run_python, tmp_path, toolbox, other, error):
    pytest.importorskip('mmpretrain' if toolbox == 'mmseg' else 'mmseg')
    (tmp_path / toolbox).mkdir()
    (tmp_path / toolbox / '__init__.py').write_text(f'raise {error}("no such thing")\n')
    script = (
        'import warnings\n'
        'with warnings.catch_warnings(record=True) as caught:\n'
        '    warnings.simplefilter("always")\n'
        '    import sar_mm\n'
        'print([str(each.message) for each in caught if "is left out" in str(each.message)][0])\n'
        'from sar_mm.registry import MODELS\n'
        'print(MODELS.get("{0}").__name__)\n'
    )
    ((message, found),) = run_python(script.format(other), paths=[tmp_path])
    assert f'because {toolbox} cannot be imported: {error}' in message and 'no such thing' in message
    assert found == other


@pytest.mark.parametrize(
    'toolbox, name',
    [
        ('mmpretrain', 'quickstart/sar_resnet18_1xb64-300iter_digits-lt.py'),
        ('mmseg', 'segmentation/hrnet/sar_fcn_hr48_4xb2-80k_cityscapes-512x1024.py'),
    ],
)
def test_bases__of_this_package_read_as_by_their_path(tmp_path, toolbox, name):
    pytest.importorskip(toolbox)
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = 'sar_mm::{name}'\n")
    path = Path(sar_mm.__file__).parent / '.mim' / 'configs' / name
    # A `_scope_` of sar_mm would hide the names of the toolbox.
    assert Config.fromfile(config).to_dict() == Config.fromfile(path).to_dict()


def test_bases__are_allowed_where_a_tool_starts_not_on_import(tmp_path, monkeypatch):
    pytest.importorskip('mmpretrain')
    monkeypatch.setattr(Config, '_get_cfg_path', staticmethod(toolboxes._find_base))
    importlib.reload(sar_mm)
    assert Config._get_cfg_path is toolboxes._find_base
    for _ in range(2):  # once more does not harm
        sar_mm.allow_bases()
        path, scope = Config._get_cfg_path('sar_mm::quickstart/sar_resnet18_1xb64-300iter_digits-lt.py', '')
        assert Path(path).is_file() and scope is None
