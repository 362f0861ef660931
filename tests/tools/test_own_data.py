"""The pages on one's own data: their configs and commands are run as they stand, on handwritten digits."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS, DefaultScope
from PIL import Image

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


def prepare(task, folder, run_tool):
    """Write the configs of a page, and run its first command, which makes the data."""
    pytest.importorskip('mmseg.models' if task == 'segmentation' else 'mmpretrain.models')
    pytest.importorskip('sklearn')
    for path, text in configs(read(task)).items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)
    program, tool, *arguments = commands(read(task))[0]
    assert program == 'python' and tool.endswith('digits.py')
    run_tool(ROOT / tool, *arguments, folder=folder)
    thin_out(folder / 'data' / 'mine' / task, task)


@pytest.fixture(scope='module')
def walk(run_tool, tmp_path_factory):
    """Go through a page: return the folder and what each command printed."""
    walked = {}

    def walk(task):
        if task in walked:
            return walked[task]
        for package in ('onnx', 'onnxscript', 'onnxruntime'):
            pytest.importorskip(package)
        folder, outputs = tmp_path_factory.mktemp(task), []
        prepare(task, folder, run_tool)
        for program, tool, *arguments in commands(read(task))[1:]:
            assert program == 'python' and tool.startswith('tools/')
            arguments = [argument.replace(*CHECKPOINT[task]) for argument in arguments]
            if tool == 'tools/train.py':
                arguments += ['--cfg-options', *SHORT[task]]
            outputs.append((tool, arguments, run_tool(ROOT / tool, *arguments, folder=folder)))
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


@pytest.fixture(scope='module')
def digits_folder(run_tool, tmp_path_factory):
    """The configs and data of both pages."""
    folder = tmp_path_factory.mktemp('mistakes')
    for task in ('segmentation', 'classification'):
        prepare(task, folder, run_tool)
    counts = folder / 'my_configs/sar_segmentation.py'
    run_tool(ROOT / 'tools/dataset_converters/class_counts.py', counts, folder=folder)
    return folder


# What the pages quote, the mistake in the config that leads to it, and the exit code of the training.
MISTAKES = {
    'segmentation': {
        'model.auxiliary_head.num_classes=19, but the BaseSegDataset of train_dataloader.dataset has 11 classes': (
            'model.auxiliary_head.num_classes=19',
            2,
        ),
        'ValueError: need at least one array to concatenate': ('train_dataloader.dataset.img_suffix=.jpg', 1),
        "No such file or directory: 'data/mine/segmentation/img_dir/trian'": (
            'train_dataloader.dataset.data_prefix.img_path=img_dir/trian',
            1,
        ),
        'AssertionError: only one of size and size_divisor should be valid': ('model.data_preprocessor.size=None', 1),
        'has the classes of train_dataloader.dataset in another order': (
            'train_dataloader.dataset.metainfo.classes=[1,0,2,3,4,5,6,7,8,9,background]',
            2,
        ),
        'ValueError: Expected more than 1 value per channel when training': ('train_dataloader.batch_size=1', 1),
        'there are no class counts in': ('custom_hooks.0.file=gone.json', 1),
    },
    'classification': {
        'model.head.num_classes=7, but the CustomDataset of train_dataloader.dataset has 10 classes': (
            'model.head.num_classes=7',
            2,
        ),
        'but the CustomDataset of val_dataloader.dataset has 9 classes': (
            'val_dataloader.dataset.data_prefix=nine',
            2,
        ),
        'the classes are in another order than the folders that they name': (
            'train_dataloader.dataset.classes=[1,0,2,3,4,5,6,7,8,9]',
            2,
        ),
        "No such file or directory: 'data/mine/classification/trian'": (
            'train_dataloader.dataset.data_prefix=trian',
            1,
        ),
        'train_dataloader gives no batch with batch_size=400 and drop_last=True': (
            'train_dataloader.batch_size=400',
            2,
        ),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize('task, quote', [(task, quote) for task, quotes in MISTAKES.items() for quote in quotes])
def test_own_data__a_mistake_in_the_config_has_the_message_on_the_page(digits_folder, run_tool, task, quote):
    option, code = MISTAKES[task][quote]
    images = digits_folder / 'data/mine/classification'
    shutil.copytree(images / 'test', images / 'nine', ignore=shutil.ignore_patterns('9'), dirs_exist_ok=True)
    arguments = [f'my_configs/sar_{task}.py', '--work-dir', 'work_dirs/mistakes', '--cfg-options', *SHORT[task], option]
    assert quote in read(task)
    assert quote in run_tool(ROOT / 'tools/train.py', *arguments, folder=digits_folder, code=code)


@pytest.mark.slow
@pytest.mark.parametrize(
    'options, quote',
    [
        (['reduce_zero_label=True'], 'warning: no label map shows class 10 (background)'),
        (
            ['data_prefix.seg_map_path=binary', 'metainfo.classes=[background,digit]'],
            'warning: the label maps have the values 0, 255, and 255 is the ignored label',
        ),
    ],
)
def test_own_data__class_counts_warn_of_wrong_labels(digits_folder, run_tool, options, quote):
    for path in (digits_folder / 'data/mine/segmentation/ann_dir/train').iterdir():
        binary = digits_folder / 'data/mine/segmentation/binary' / path.name
        binary.parent.mkdir(exist_ok=True)
        Image.fromarray(np.where(np.asarray(Image.open(path)) < 10, 255, 0).astype(np.uint8)).save(binary)
    options = [f'train_dataloader.dataset.{option}' for option in options]
    arguments = ['my_configs/sar_segmentation.py', '--out', 'counts.json', '--cfg-options', *options]
    assert quote in read('segmentation')
    assert quote in run_tool(ROOT / 'tools/dataset_converters/class_counts.py', *arguments, folder=digits_folder)


@pytest.mark.parametrize(
    'labels, quotes',
    [
        (
            np.full((64, 64), 11, np.uint8),
            ['has labels that are no class: 11', '11 classes have 0 to 10, and 255 is ignored'],
        ),
        (
            np.zeros((64, 64, 3), np.uint8),
            ['is of shape (64, 64, 3), where its image is of (64, 64); it should hold one class index per pixel'],
        ),
        (np.zeros((32, 32), np.uint8), ['is of shape (32, 32), where its image is of (64, 64)']),
        (np.full((64, 64), 300, np.uint16), ['has labels up to 300, and mmseg reads labels of 8 bits']),
    ],
    ids=['start at 1', 'colors', 'size', '16 bits'],
)
def test_own_data__a_wrong_label_map_has_the_message_on_the_page(tmp_path, labels, quotes):
    pytest.importorskip('mmseg.models')
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / 'image.png')
    Image.fromarray(labels).save(tmp_path / 'labels.png')
    (tmp_path / 'config.py').write_text(next(iter(configs(read('segmentation')).values())))
    with DefaultScope.overwrite_default_scope('mmseg'):
        load = TRANSFORMS.build(Config.fromfile(tmp_path / 'config.py').load)
        paths = dict(img_path=str(tmp_path / 'image.png'), seg_map_path=str(tmp_path / 'labels.png'))
        with pytest.raises(ValueError) as error:
            load(dict(paths, reduce_zero_label=False, label_map=None, seg_fields=[]))
    assert all(quote in str(error.value) and quote in read('segmentation') for quote in quotes)
