"""tools/train.py and tools/test.py: most runs within this process, one of each tool in one of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.device import get_device

ROOT = Path(__file__).parents[2]
TRAIN, TEST = ROOT / 'tools' / 'train.py', ROOT / 'tools' / 'test.py'
CLASSIFICATION = 'resnet18_1xb64-300iter_digits-lt'
SEGMENTATION = 'fcn_unet_1xb16-400iter_digit-scenes-64x64'
THREE_ITERATIONS = ['train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'default_hooks.logger.interval=1']


def config(name):
    return str(ROOT / 'configs' / 'quickstart' / f'{name}.py')


def logged(output):
    return re.findall(r'Iter\(train\) .*', output)


@pytest.fixture(scope='module')
def train(run_tool, folder):
    return lambda *arguments, code=0: run_tool(TRAIN, *arguments, folder=folder, code=code)


@pytest.fixture(scope='module')
def test(run_tool, folder):
    return lambda *arguments, code=0: run_tool(TEST, *arguments, folder=folder, code=code)


@pytest.fixture(scope='module')
def trained(train):
    """Train the two SAR configs for three iterations, in `runs/`; return what was printed."""
    return {
        name: train(config(f'sar_{name}'), '--work-dir', f'runs/{name}', '--cfg-options', *THREE_ITERATIONS)
        for name in (CLASSIFICATION, SEGMENTATION)
    }


@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_train__three_iterations_log_the_anchors(folder, trained, name):
    lines = logged(trained[name])
    assert len(lines) == 3
    keys = ('loss_anchor', 'loss_pull', 'anchor_acc', 'anchor_conf', 'anchor_gate', 'anchor_cos', 'anchor_cos_mean')
    assert all(re.search(rf'\b{key}: [\d.]+', line) for line in lines for key in keys)
    checkpoint = torch.load(folder / 'runs' / name / 'iter_3.pth', map_location='cpu', weights_only=False)
    assert any('anchor_head.semantic_anchors' in key for key in checkpoint['state_dict'])


@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_train__stock_config_without_validation(train, name):
    output = train(
        config(name), '--no-validate', '--work-dir', f'runs/stock_{name}', '--cfg-options', *THREE_ITERATIONS
    )
    assert len(logged(output)) == 3
    assert 'anchor' not in ''.join(logged(output)) and '(val)' not in output


@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_train__resume_goes_on_where_it_stopped(folder, train, run_process, trained, name):
    def options(last):
        return ['--cfg-options', f'train_cfg.max_iters={last}', *THREE_ITERATIONS[1:]]

    command = [config(f'sar_{name}'), '--work-dir', f'runs/{name}_resumed']
    arguments = [*command, '--resume', f'runs/{name}/iter_3.pth', *options(5)]
    resumed = run_process(TRAIN, *arguments, folder=folder) if name == CLASSIFICATION else train(*arguments)
    steps = [line.split('[')[1].split(']')[0].split('/')[0].strip() for line in logged(resumed)]
    assert steps == ['4', '5']
    again = train(*command, '--resume', *options(6))  # the latest one
    assert len(logged(again)) == 1


def test_train__resume_with_the_flexible_runner(train, trained):
    options = ['train_cfg.max_iters=5', *THREE_ITERATIONS[1:], 'runner_type=FlexibleRunner']
    command = [config(f'sar_{CLASSIFICATION}'), '--work-dir', 'runs/flexible', '--cfg-options', *options]
    assert len(logged(train(*command, '--resume', f'runs/{CLASSIFICATION}/iter_3.pth'))) == 2


@pytest.mark.parametrize('name', [pytest.param(CLASSIFICATION, marks=pytest.mark.slow), SEGMENTATION])
def test_train__two_processes_without_a_gpu(folder, name):
    command = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), config(f'sar_{name}'), '2']
    options = ['--work-dir', f'runs/{name}_2', '--cfg-options', *THREE_ITERATIONS]
    variables = dict(
        OMP_NUM_THREADS='1',
        PYTHONPATH=str(ROOT),
        CUDA_VISIBLE_DEVICES='',
        PORT=str(29600 + os.getpid() % 300),
        PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
    )
    pipe = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
    result = subprocess.run([*command, *options], cwd=folder, env=dict(os.environ, **variables), **pipe)
    assert result.returncode == 0, result.stdout[-3000:]
    assert len(logged(result.stdout)) == 3
    assert 'Distributed training: True' in result.stdout and 'GPU number: 2' in result.stdout


@pytest.mark.parametrize('name', [CLASSIFICATION, SEGMENTATION])
def test_test__reports_scores_and_writes_predictions_and_pictures(folder, test, run_process, trained, name):
    is_segmentation = name == SEGMENTATION
    out = f'runs/{name}/predictions' + ('' if is_segmentation else '.pkl')
    arguments = [config(f'sar_{name}'), f'runs/{name}/iter_3.pth', '--work-dir', f'runs/{name}/test']
    arguments += ['--out', out, '--show-dir', f'runs/{name}/pictures']
    if is_segmentation:
        test(*arguments)
    else:
        run_process(TEST, *arguments, folder=folder)
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
def test_test__augments_at_test_time(test, trained, name):
    output = test(config(f'sar_{name}'), f'runs/{name}/iter_3.pth', '--work-dir', f'runs/{name}/tta', '--tta')
    score = re.findall(r'(?:accuracy/top1|mIoU): ([\d.]+)', output)[-1]
    assert 0 <= float(score) <= 100


def test_test__sar_and_stock_checkpoints_fit_both_configs(test, trained):
    checkpoint = f'runs/{CLASSIFICATION}/iter_3.pth'
    scores = []
    for name in (CLASSIFICATION, f'sar_{CLASSIFICATION}'):
        output = test(config(name), checkpoint, '--work-dir', f'runs/both/{name}')
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
        pytest.param(
            [config(CLASSIFICATION), '--amp'],
            '--amp needs an accelerator',
            marks=pytest.mark.skipif(get_device() != 'cpu', reason='there is an accelerator'),
        ),
        ([config(CLASSIFICATION), '--auto-scale-lr', '--cfg-options', 'auto_scale_lr=dict()'], 'base_batch_size'),
    ],
    ids=str,
)
def test_train__typing_errors_get_a_message_and_no_traceback(train, arguments, message):
    assert message in train(*arguments, code=2)


@pytest.mark.parametrize(
    'options, message',
    [
        (
            'model.head.loss.type=LabelSmothLoss',
            "help: model.head.loss.type='LabelSmothLoss' is not registered; did you mean LabelSmoothLoss",
        ),
        ('train_dataloader.dataset.data_root=nowhere', 'nowhere'),
    ],
)
def test_train__other_errors_get_a_traceback_and_help(train, options, message):
    output = train(config(CLASSIFICATION), '--cfg-options', options, code=1)
    assert 'Traceback' in output and message in output.splitlines()[-1]


def test_train__an_unknown_head_gets_a_message_and_not_the_config(train):
    output = train(config(CLASSIFICATION), '--cfg-options', 'model.head.type=SARLinearHead', code=2)
    message = output.splitlines()[-1]
    expected = "error: model.head.type='SARLinearHead' is not registered; did you mean SARLinearClsHead"
    assert message.startswith(expected) and 'Config:' not in output and 'optim_wrapper' not in output


def test_train__typing_errors_end_the_process_without_a_traceback(run_process, folder):
    output = run_process(
        TRAIN,
        config(f'sar_{SEGMENTATION}'),
        '--cfg-options',
        'model.decode_head.anchor_head.momentum=2',
        folder=folder,
        code=2,
    )
    assert 'Expected argument `momentum`' in output and 'Traceback' not in output


def test_train__broken_config(folder, train):
    (folder / 'broken.py').write_text('model = dict(\n')
    assert 'error: config broken.py cannot be read' in train('broken.py', code=2)


def test_train__an_error_before_the_first_step_and_no_monitor(folder, train, trained):
    hook = "custom_hooks = [dict(type='DeferredReweightingHook', begin=1)]"  # which needs epochs
    base = config(f'sar_{CLASSIFICATION}')
    (folder / 'hook.py').write_text(f'_base_ = {base!r}\n{hook}\ndefault_hooks = dict(anchor_monitor=None)\n')
    output = train('hook.py', '--work-dir', 'runs/hook', code=2)
    summary, error = 'The training was stopped: 0 of 300 iterations, 0:00:', 'error: DeferredReweightingHook begins at'
    assert summary in output and error in output.split(summary)[1] and 'before its first checkpoint' in output
    assert 'AnchorMonitorHook' in trained[CLASSIFICATION] and 'AnchorMonitorHook' not in output


def test_train__resuming_from_another_model(train, trained):
    command = [config(CLASSIFICATION), '--work-dir', 'runs/other', '--resume', f'runs/{CLASSIFICATION}/iter_3.pth']
    assert 'iter_3.pth is not a checkpoint of the model in' in train(*command, code=2)


@pytest.mark.parametrize(
    'checkpoint, message',
    [
        ('absent.pth', 'error: there is no checkpoint absent.pth'),
        (f'runs/{CLASSIFICATION}/iter_3.pth', 'weights are missing in the checkpoint'),
        ('garbage.pth', 'garbage.pth cannot be read as a checkpoint'),
    ],
)
def test_test__wrong_checkpoints(folder, test, trained, checkpoint, message):
    (folder / 'garbage.pth').write_bytes(b'not a checkpoint')
    assert message in test(config(f'sar_{SEGMENTATION}'), checkpoint, '--work-dir', 'runs/wrong', code=2)


def test_test__more_weights_than_the_model_has(folder, test, trained):
    checkpoint = torch.load(folder / f'runs/{CLASSIFICATION}/iter_3.pth', map_location='cpu', weights_only=False)
    checkpoint['state_dict']['backbone.layer1.2.conv1.weight'] = torch.zeros(1)  # as of a deeper backbone
    torch.save(checkpoint, folder / 'deeper.pth')
    command = [config(CLASSIFICATION), 'deeper.pth', '--work-dir', 'runs/wrong']
    message = '1 weights of the checkpoint are not in it, such as backbone.layer1.2.conv1.weight; if the rest is all'
    assert message in test(*command, code=2)
    assert 'accuracy/top1' in test(*command, '--cfg-options', 'check_weights=False')


def test_test__another_number_of_classes(test, trained):
    options = ['--cfg-options', 'model.head.num_classes=7', '--work-dir', 'runs/wrong']
    output = test(config(CLASSIFICATION), f'runs/{CLASSIFICATION}/iter_3.pth', *options, code=2)
    assert 'size mismatch for head.fc.weight' in output


@pytest.mark.parametrize(
    'options', [dict(type='SimplexETFAnchors'), dict(dim=9), dict(type='EmbeddingAnchors', path='gone.npy')], ids=str
)
def test_test__does_not_look_at_anchors(test, trained, options):
    place = 'model.head.anchor_head.anchors'
    options = ['--cfg-options', *(f'{place}.{name}={value}' for name, value in options.items())]
    command = [config(f'sar_{CLASSIFICATION}'), f'runs/{CLASSIFICATION}/iter_3.pth']
    output = test(*command, '--work-dir', 'runs/other_anchors', *options)
    assert 'predefined anchors' not in output and 'accuracy/top1' in output


def test_train__resume_with_anchors_of_another_dimension(train, trained):
    command = [config(f'sar_{CLASSIFICATION}'), '--work-dir', 'runs/other_anchors']
    options = ['--cfg-options', 'model.head.anchor_head.anchors.dim=9']
    output = train(*command, '--resume', f'runs/{CLASSIFICATION}/iter_3.pth', *options, code=2)
    assert 'dim=9), (10, 9)' in output and 'checkpoint, (10, 64)' in output and 'load_from' in output
