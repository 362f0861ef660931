"""The toolboxes' own tools train and test SAR configs, which only have to import sar_mm."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from mmengine.config import Config

import sar_mm  # noqa: F401

ROOT = Path(__file__).parents[2]
CONFIGS = {
    'mmseg': 'sar_fcn_unet_1xb16-400iter_digit-scenes-64x64',
    'mmpretrain': 'sar_resnet18_1xb64-300iter_digits-lt',
}
# Their test.py loads with upstream's mmengine, which needs it from PyTorch 2.6 on: see docs/installation.md.
TRUST = dict(TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD='1')


def stock_tool(toolbox, name):
    pytest.importorskip(f'{toolbox}.models')
    path = Path(find_spec(toolbox).origin).parent / '.mim' / 'tools' / f'{name}.py'
    if not path.is_file():
        pytest.skip(f'{toolbox} is installed without its tools: there is no {path}')
    return path


@pytest.mark.parametrize('toolbox', CONFIGS)
def test_stock_tools__train_and_test_with_custom_imports_only(folder, run_process, toolbox):
    train, test = stock_tool(toolbox, 'train'), stock_tool(toolbox, 'test')
    cfg = Config.fromfile(ROOT / 'configs' / 'quickstart' / f'{CONFIGS[toolbox]}.py')
    assert cfg.custom_imports == dict(imports=['sar_mm'])
    cfg.merge_from_dict(dict(train_cfg=dict(max_iters=3, val_interval=3), default_hooks=dict(logger=dict(interval=1))))
    # Without bases: OneDL's tools cannot read one of 'mmseg::...', as sar_mm is imported after the bases are read.
    config = folder / f'{CONFIGS[toolbox]}.py'
    cfg.dump(config)
    # mmpretrain's train.py sets persistent_workers, which PyTorch refuses for the num_workers=0 of these configs.
    options = ['--no-persistent-workers'] if toolbox == 'mmpretrain' else []
    log = run_process(train, config, '--work-dir', f'{toolbox}_train', *options, folder=folder)
    steps = [line for line in log.splitlines() if 'Iter(train)' in line]
    assert len(steps) == 3
    assert all('loss_anchor:' in line and 'anchor_gate:' in line for line in steps)
    checkpoint = folder / f'{toolbox}_train' / 'iter_3.pth'
    tested = run_process(test, config, checkpoint, '--work-dir', f'{toolbox}_test', folder=folder, **TRUST)
    score = 'mIoU' if toolbox == 'mmseg' else 'accuracy/top1'

    def scores(output):
        (line,) = [line for line in output.splitlines() if f' {score}: ' in line]
        return line.split(f' {score}: ')[1].split()[0]

    assert scores(tested) == scores(log)
