"""The pages on one's own data: their configs and commands are run as they stand, on handwritten digits."""

import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# All that is changed: the length of the trainings, the name of the last checkpoint that follows from it, and the
# pretrained weights, which need a network.
SHORT = dict(
    segmentation=['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'model.pretrained=None'],
    classification=['train_cfg.max_epochs=1', 'model.backbone.init_cfg=None'],
)
CHECKPOINT = dict(segmentation=('iter_20000', 'iter_2'), classification=('epoch_50', 'epoch_1'))
SCORES = dict(
    segmentation=('mIoU', 'mIoU/common', 'mIoU/rare', 'IoU/background', 'aAcc', 'mAcc'),
    classification=('accuracy/top1', 'balanced_accuracy', 'many', 'few'),
)


def read(task):
    return (ROOT / 'docs' / f'own_data_{task}.md').read_text(encoding='utf-8')


def blocks(page, language):
    return re.findall(rf'^```{language}\n(.*?)^```', page, re.DOTALL | re.MULTILINE)


def configs(page):
    """Return the configs in a page by the file name in their first line."""
    return {block.split()[1]: block for block in blocks(page, 'python') if block.startswith('# my_configs/')}


def commands(page):
    lines = '\n'.join(blocks(page, 'bash')).replace('\\\n', ' ').splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def thin_out(folder, task):
    """Keep a few images; their numbers matter to nothing that the page says."""
    for path in sorted(folder.rglob('*.png')):
        is_training = 'train' in path.parts
        keep = (24 if is_training else 6) if task == 'segmentation' else (120 if is_training else 2)
        if int(path.stem) >= keep:
            path.unlink()


@pytest.fixture(scope='module')
def walk(run_tool, tmp_path_factory):
    """Go through a page: return the folder and what each command printed."""
    walked = {}

    def walk(task):
        if task in walked:
            return walked[task]
        pytest.importorskip('mmseg.models' if task == 'segmentation' else 'mmpretrain.models')
        for package in ('onnx', 'onnxscript', 'onnxruntime', 'sklearn'):
            pytest.importorskip(package)
        folder, page, outputs = tmp_path_factory.mktemp(task), read(task), []
        for path, text in configs(page).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
        for program, tool, *arguments in commands(page):
            assert program == 'python' and tool.startswith('tools/')
            arguments = [argument.replace(*CHECKPOINT[task]) for argument in arguments]
            if tool == 'tools/train.py':
                arguments += ['--cfg-options', *SHORT[task]]
            outputs.append((tool, arguments, run_tool(ROOT / tool, *arguments, folder=folder)))
            if tool.endswith('digits.py'):
                thin_out(folder / 'data' / 'mine' / task, task)
        walked[task] = folder, outputs
        return walked[task]

    return walk


TASKS = pytest.mark.parametrize('task', ['segmentation', 'classification'])


@pytest.mark.slow
@pytest.mark.ci
@TASKS
def test_own_data__page_leads_from_folders_to_an_exported_model(walk, task):
    folder, outputs = walk(task)
    tools = [Path(tool).name for tool, _, _ in outputs]
    expected = ('class_counts.py', 'train.py', 'test.py', 'compare_features.py', 'to_stock.py', 'to_onnx.py')
    assert set(expected) <= set(tools)
    assert 'anchor_gate: ' in next(output for tool, _, output in outputs if tool == 'tools/train.py')
    assert any(re.search(r'[1-9]\d* tensors of semantic anchors dropped', output) for _, _, output in outputs)
    assert len(json.loads((folder / f'data/mine/{task}/class_counts.json').read_text())['images']) >= 10
    pictures = list((folder / f'work_dirs/sar_{task}/pictures').rglob('*.png'))
    assert len(pictures) == (6 if task == 'segmentation' else 20)
    assert (folder / f'work_dirs/export/{task}.onnx').stat().st_size > 1e6
    assert (folder / 'work_dirs/compare/frequency.png').is_file()


@pytest.mark.slow
@pytest.mark.ci
@TASKS
def test_own_data__scores_have_the_names_on_the_page(walk, task):
    folder, outputs = walk(task)
    page = read(task)
    first, last = (output for tool, _, output in outputs if tool == 'tools/test.py')
    for name in SCORES[task]:
        assert f'{name}: ' in first
        assert f'`{name}`' in page or name.startswith('IoU/')
    scores = [re.findall(r'(?:mIoU|accuracy/top1): ([\d.]+)', output)[-1] for output in (first, last)]
    assert scores[0] == scores[1]  # with anchors and without: the stripped checkpoint is the same model


@TASKS
def test_own_data__whole_config_and_the_change_that_turns_anchors_on(task):
    whole, sar = configs(read(task)).values()
    assert len(sar.splitlines()) == 4 and 'SAR' in sar and 'SAR' not in whole
    assert '_delete_' not in whole
