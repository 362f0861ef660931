import re
from pathlib import Path

import pytest
from mmengine.config import Config

import sar_mm

TRY = 'try:\n    import sar_mm\nexcept ModuleNotFoundError as error:\n    print(error.name)\n    print(error)\n'


def onedl_names(text):
    return sorted(set(re.findall(r'\bonedl-\w+', text)))


def test_version__is_a_version():
    assert re.fullmatch(r'\d+\.\d+\.\d+\S*', sar_mm.__version__)


def test_import__without_mmengine_names_both_stacks(run_python):
    (name, *message), (broken, *_) = run_python(
        'import sys\nsys.modules["mmengine"] = None\n' + TRY, 'import sys\nsys.modules["addict"] = None\n' + TRY
    )
    assert (name, len(message)) == ('mmengine', 1)
    assert '`pip install torchvision onedl-mmengine ' in message[0]
    assert '`pip install openmim && mim install mmengine ' in message[0]
    assert len(onedl_names(message[0])) == 4
    assert message[0].endswith('.') and len(re.findall(r'\.(\s|$)', message[0])) == 1
    # An mmengine that is there but broken keeps its own error.
    assert broken == 'addict'


def test_import__names_the_packages_of_the_requirements(run_python):
    path = Path(sar_mm.__file__).parents[1] / 'requirements' / 'onedl.txt'
    if not path.exists():
        pytest.skip('the requirements are not part of an installed package')
    ((_, message),) = run_python('import sys\nsys.modules["mmengine"] = None\n' + TRY)
    assert onedl_names(message) == onedl_names(path.read_text())


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
