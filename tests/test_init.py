import re
from pathlib import Path

import pytest

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
