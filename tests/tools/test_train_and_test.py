import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / 'configs' / 'quickstart'
CLASSIFICATION = 'resnet18_1xb64-300iter_digits-lt'
SEGMENTATION = 'fcn_unet_1xb16-400iter_digit-scenes-64x64'
THREE_ITERATIONS = ['train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'default_hooks.logger.interval=1']


def run(folder, command, code=0):
    """Run a command as a user would, in a folder with the data; return all it printed."""
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='')
    result = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300
    )
    assert result.returncode == code, result.stdout[-3000:]
    return result.stdout


def tool(name, *arguments):
    return [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, arguments)]


def config(name):
    return str(QUICKSTART / f'{name}.py')


def logged(output):
    return re.findall(r'Iter\(train\) .*', output)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('work')
    run(folder, tool('dataset_converters/digits'))
    return folder


@pytest.fixture(scope='module')
def trained(folder):
    """Work folders of the two SAR configs after three iterations, and what was printed."""
    outputs = {}
    for name in (CLASSIFICATION, SEGMENTATION):
        command = tool('train', config(f'sar_{name}'), '--work-dir', f'runs/{name}', '--cfg-options', *THREE_ITERATIONS)
        outputs[name] = run(folder, command)
    return outputs


@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_train__three_iterations_log_the_anchors(folder, trained, name):
    lines = logged(trained[name])
    assert len(lines) == 3
    keys = ('loss_anchor', 'loss_pull', 'anchor_acc', 'anchor_conf', 'anchor_gate', 'anchor_cos', 'anchor_cos_mean')
    assert all(re.search(rf'\b{key}: [\d.]+', line) for line in lines for key in keys)
    checkpoint = torch.load(folder / 'runs' / name / 'iter_3.pth', map_location='cpu', weights_only=False)
    assert any('anchor_head.semantic_anchors' in key for key in checkpoint['state_dict'])


@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_train__stock_config_without_validation(folder, name):
    command = tool('train', config(name), '--no-validate', '--work-dir', f'runs/stock_{name}')
    output = run(folder, [*command, '--cfg-options', *THREE_ITERATIONS])
    assert len(logged(output)) == 3
    assert 'anchor' not in ''.join(logged(output)) and '(val)' not in output


@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_train__resume_goes_on_where_it_stopped(folder, trained, name):
    options = ['train_cfg.max_iters=5', *THREE_ITERATIONS[1:]]
    command = tool('train', config(f'sar_{name}'), '--work-dir', f'runs/{name}_resumed', '--cfg-options', *options)
    resumed = run(folder, [*command, '--resume', f'runs/{name}/iter_3.pth'])
    steps = [line.split('[')[1].split(']')[0].split('/')[0].strip() for line in logged(resumed)]
    assert steps == ['4', '5']
    again = run(folder, [*command[:-3], 'train_cfg.max_iters=6', *options[1:], '--resume'])  # the latest one
    assert len(logged(again)) == 1


def test_train__resume_with_the_flexible_runner(folder, trained):
    options = ['train_cfg.max_iters=5', *THREE_ITERATIONS[1:], 'runner_type=FlexibleRunner']
    command = tool('train', config(f'sar_{CLASSIFICATION}'), '--work-dir', 'runs/flexible', '--cfg-options', *options)
    assert len(logged(run(folder, [*command, '--resume', f'runs/{CLASSIFICATION}/iter_3.pth']))) == 2


@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_train__two_processes_without_a_gpu(folder, name):
    command = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), config(f'sar_{name}'), '2']
    options = ['--work-dir', f'runs/{name}_2', '--cfg-options', *THREE_ITERATIONS]
    environment_port = 29600 + os.getpid() % 300
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    output = run(folder, ['env', f'PORT={environment_port}', f'PATH={path}', *command, *options])
    assert len(logged(output)) == 3
    assert 'Distributed training: True' in output and 'GPU number: 2' in output


@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_test__reports_scores_and_writes_predictions_and_pictures(folder, trained, name):
    is_segmentation = name == SEGMENTATION
    out = f'runs/{name}/predictions' + ('' if is_segmentation else '.pkl')
    arguments = ['--work-dir', f'runs/{name}/test', '--out', out, '--show-dir', f'runs/{name}/pictures']
    command = tool('test', config(f'sar_{name}'), f'runs/{name}/iter_3.pth', *arguments)
    run(folder, command)
    scores = json.loads(next((folder / f'runs/{name}/test').glob('*/*.json')).read_text())
    assert 0 <= scores['mIoU' if is_segmentation else 'accuracy/top1'] <= 100
    if is_segmentation:
        assert len(list((folder / out).glob('*.png'))) == 100
    else:
        assert (folder / out).stat().st_size > 1000
    pictures = folder / f'runs/{name}/pictures'
    drawn = sorted(path.relative_to(pictures) for path in pictures.rglob('*.png'))
    images = folder / 'data/digits' / ('segmentation/img_dir/val' if is_segmentation else 'classification/test')
    assert drawn == sorted(path.relative_to(images) for path in images.rglob('*.png'))
    assert len(drawn) == (100 if is_segmentation else 540)


@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_test__augments_at_test_time(folder, trained, name):
    command = tool('test', config(f'sar_{name}'), f'runs/{name}/iter_3.pth', '--work-dir', f'runs/{name}/tta', '--tta')
    output = run(folder, command)
    score = re.findall(r'(?:accuracy/top1|mIoU): ([\d.]+)', output)[-1]
    assert 0 <= float(score) <= 100


def test_test__sar_and_stock_checkpoints_fit_both_configs(folder, trained):
    checkpoint = f'runs/{CLASSIFICATION}/iter_3.pth'
    scores = []
    for name in (CLASSIFICATION, f'sar_{CLASSIFICATION}'):
        output = run(folder, tool('test', config(name), checkpoint, '--work-dir', f'runs/both/{name}'))
        scores.append(re.findall(r'accuracy/top1: ([\d.]+)', output)[-1])
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    'arguments, message',
    [
        ([], 'the following arguments are required: config'),
        (['absent.py'], 'error: there is no config absent.py'),
        ([config(CLASSIFICATION), '--resume', 'absent.pth'], 'error: there is no checkpoint absent.pth'),
        (
            [config(f'sar_{SEGMENTATION}'), '--cfg-options', 'model.decode_head.anchor_head.momentum=2'],
            'Expected argument `momentum` to be a number in [0, 1], but got 2',
        ),
        ([config(CLASSIFICATION), '--launcher', 'pytorch'], 'use tools/dist_train.sh CONFIG GPUS'),
        ([config(CLASSIFICATION), '--amp'], '--amp needs an accelerator'),
        ([config(CLASSIFICATION), '--auto-scale-lr', '--cfg-options', 'auto_scale_lr=dict()'], 'base_batch_size'),
    ],
    ids=str,
)
def test_train__typing_errors_get_a_message_and_no_traceback(folder, arguments, message):
    output = run(folder, tool('train', *arguments), code=2)
    assert message in output
    assert 'Traceback' not in output


@pytest.mark.parametrize(
    'options, message',
    [
        (
            'model.head.type=SARLinearHead',
            "help: model.head.type='SARLinearHead' is not registered; did you mean SARLinearClsHead",
        ),
        ('train_dataloader.dataset.data_root=nowhere', 'nowhere'),
    ],
)
def test_train__other_errors_get_a_traceback_and_help(folder, options, message):
    output = run(folder, tool('train', config(CLASSIFICATION), '--cfg-options', options), code=1)
    assert 'Traceback' in output and message in output.splitlines()[-1]


def test_train__broken_config(folder):
    (folder / 'broken.py').write_text('model = dict(\n')
    output = run(folder, tool('train', 'broken.py'), code=2)
    assert 'error: config broken.py cannot be read' in output and 'Traceback' not in output


def test_train__resuming_from_another_model(folder, trained):
    command = tool('train', config(CLASSIFICATION), '--work-dir', 'runs/other')
    output = run(folder, [*command, '--resume', f'runs/{CLASSIFICATION}/iter_3.pth'], code=2)
    assert 'iter_3.pth is not a checkpoint of the model in' in output and 'Traceback' not in output


@pytest.mark.parametrize(
    'checkpoint, message',
    [
        ('absent.pth', 'error: there is no checkpoint absent.pth'),
        (f'runs/{CLASSIFICATION}/iter_3.pth', 'weights are missing in the checkpoint'),
        ('garbage.pth', 'garbage.pth cannot be read as a checkpoint'),
    ],
)
def test_test__wrong_checkpoints(folder, trained, checkpoint, message):
    (folder / 'garbage.pth').write_bytes(b'not a checkpoint')
    command = tool('test', config(f'sar_{SEGMENTATION}'), checkpoint, '--work-dir', 'runs/wrong')
    output = run(folder, command, code=2)
    assert message in output
    assert 'Traceback' not in output


def test_test__another_number_of_classes(folder, trained):
    options = ['--cfg-options', 'model.head.num_classes=7', '--work-dir', 'runs/wrong']
    command = tool('test', config(CLASSIFICATION), f'runs/{CLASSIFICATION}/iter_3.pth', *options)
    output = run(folder, command, code=2)
    assert 'size mismatch for head.fc.weight' in output and 'Traceback' not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    'options', [dict(type='SimplexETFAnchors'), dict(dim=9), dict(type='EmbeddingAnchors', path='gone.npy')], ids=str
)
def test_test__does_not_look_at_anchors(folder, trained, options):
    place = 'model.head.anchor_head.anchors'
    options = ['--cfg-options', *(f'{place}.{name}={value}' for name, value in options.items())]
    command = tool('test', config(f'sar_{CLASSIFICATION}'), f'runs/{CLASSIFICATION}/iter_3.pth')
    output = run(folder, [*command, '--work-dir', 'runs/other_anchors', *options])
    assert 'predefined anchors' not in output and 'accuracy/top1' in output


@pytest.mark.slow
def test_train__resume_with_anchors_of_another_dimension(folder, trained):
    command = tool('train', config(f'sar_{CLASSIFICATION}'), '--work-dir', 'runs/other_anchors')
    options = ['--cfg-options', 'model.head.anchor_head.anchors.dim=9']
    output = run(folder, [*command, '--resume', f'runs/{CLASSIFICATION}/iter_3.pth', *options], code=2)
    assert 'dim=9), (10, 9)' in output and 'checkpoint, (10, 64)' in output and 'load_from' in output
