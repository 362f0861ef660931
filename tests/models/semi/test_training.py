"""Semi-supervised models trained as users train them: several processes, and a run that is killed and resumed."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[3]

TWO_PROCESSES = """
import hashlib, importlib.util, os, sys
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
import sar_mm
torch.distributed.init_process_group('gloo', init_method={init!r}, rank={rank}, world_size=2)
spec = importlib.util.spec_from_file_location('semi_conftest', {conftest!r})
tools = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tools)
for kind, options in {cases!r}:
    semi = dict(threshold=dict(type='SelfAdaptiveThreshold', momentum=0.5), **options)
    semi.update(distribution_alignment=dict(target='labeled', momentum=0.5))
    module = tools.make_semi.__wrapped__()(kind, sar=True, semi=semi)
    model = MMDistributedDataParallel(module=module, device_ids=None, broadcast_buffers=False)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.05))
    make_items = tools.make_items.__wrapped__()
    for step in range(3):
        log = model.train_step(make_items(kind, 3, 4, step=100 * {rank} + step), optimizer)
    for name, value in sorted(module.state_dict().items()):
        if 'running' not in name:
            print('state', kind, options, name, hashlib.sha256(value.numpy().tobytes()).hexdigest())
torch.distributed.barrier()
sys.stdout.flush()
os._exit(0)  # the threads of gloo may abort a process that ends otherwise
"""


def test_two_processes__agree_on_weights_teacher_anchors_and_thresholds(make_semi, run_python, tmp_path):
    make_semi('cls'), make_semi('seg')  # skips where a toolbox is missing
    conftest = str(Path(__file__).with_name('conftest.py'))
    init = f'file://{tmp_path}/rendezvous'
    cases = [('cls', dict(teacher=dict(momentum=0.2))), ('seg', dict(joint_forward=True))]
    cases += [('seg', dict(joint_forward=False))]
    scripts = [TWO_PROCESSES.format(init=init, conftest=conftest, cases=cases, rank=rank) for rank in range(2)]
    outputs = [[line for line in lines if line.startswith('state ')] for lines in run_python(*scripts)]
    for kind, options in cases:
        one, other = ([line for line in lines if f' {kind} {options} ' in line] for lines in outputs)
        assert len(one) > 40
        assert any('semantic_anchors' in line for line in one)
        assert any('pseudo_labels.threshold.per_class' in line for line in one)
        # Running statistics of batch normalisation are each process's own, as in stock models; the teacher copies them.
        assert one == other, (kind, options)


CONFIG = """
custom_imports = dict(imports=['sar_mm'])
default_scope = 'mmpretrain'
model = dict(
    type='SemiClassifier',
    semi=dict(
        threshold=dict(type='SelfAdaptiveThreshold', momentum=0.5), teacher=dict(momentum=0.2), warmup_iters=9
    ),
    classifier=dict(
        type='ImageClassifier',
        data_preprocessor=dict(num_classes=3, mean=[127.5] * 3, std=[127.5] * 3),
        backbone=dict(type='CIFARResNet', depth=8, base_channels=4),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='SARLinearClsHead', num_classes=3, in_channels=16, anchor_head=dict(gate_threshold=0.2)),
    ),
)
# Nothing random in the pipelines: what a resumed run gets is decided by the sampler.
load = [dict(type='LoadImageFromFile')]
pack = [dict(type='PackInputs')]
images = dict(type='CustomDataset', data_root='data', data_prefix='train')
branches = dict(type='MultiBranch', weak=pack, strong=[dict(type='Solarize', thr=128, prob=1.0), *pack])
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='LabeledUnlabeledSampler', labeled=2, unlabeled=6),
    dataset=dict(
        type='SemiSupervisedDataset',
        labeled=dict(type='LabeledSubset', part='labeled', per_class=2, dataset=dict(images, pipeline=load + pack)),
        unlabeled=dict(
            type='LabeledSubset', part='unlabeled', per_class=2, dataset=dict(images, pipeline=[*load, branches])
        ),
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(images, pipeline=load + pack),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
val_cfg = dict(type='TeacherStudentValLoop')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=40, val_interval=20)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
param_scheduler = dict(type='CosineAnnealingLR', T_max=40, by_epoch=False)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=4,
        max_keep_ckpts=2,
        save_best='teacher/accuracy/top1',
        rule='greater',
    ),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=3)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    pytest.importorskip('mmpretrain.models')
    from PIL import Image

    folder = tmp_path_factory.mktemp('semi')
    (folder / 'config.py').write_text(CONFIG)
    generator = np.random.default_rng(0)
    for label in range(3):
        images = folder / 'data' / 'train' / str(label)
        images.mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(60 * label, 60 * label + 120, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f'{number}.png')
    return folder


def start(folder, *arguments):
    paths = [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join(paths))
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), 'config.py', *arguments]
    with (folder / 'output.txt').open('a') as output:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


@pytest.fixture(scope='module')
def whole_run(folder):
    """The final checkpoint of a run that nothing interrupts."""
    assert start(folder, '--work-dir', 'whole').wait(timeout=300) == 0, (folder / 'output.txt').read_text()
    return torch.load(folder / 'whole' / 'iter_40.pth', map_location='cpu', weights_only=False)


@pytest.mark.slow  # tests/combinations resumes such runs, tests/faults kills others
def test_train__killed_and_resumed_is_as_if_nothing_had_happened(folder, whole_run):
    process = start(folder, '--work-dir', 'killed')
    marker = folder / 'killed' / 'last_checkpoint'
    deadline = time.monotonic() + 120
    while not (marker.exists() and 'iter_8.pth' in marker.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, (folder / 'output.txt').read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / 'killed' / 'iter_40.pth').exists()
    assert start(folder, '--work-dir', 'killed', '--resume').wait(timeout=300) == 0, (folder / 'output.txt').read_text()
    resumed = torch.load(folder / 'killed' / 'iter_40.pth', map_location='cpu', weights_only=False)
    assert resumed['state_dict'].keys() == whole_run['state_dict'].keys()
    for name, value in whole_run['state_dict'].items():
        assert torch.equal(resumed['state_dict'][name], value), name


def test_train__keeps_the_teacher_and_the_state_of_the_thresholds(whole_run):
    weights = whole_run['state_dict']
    assert weights['teacher.steps'] == 40
    assert weights['student.head.anchor_head.initialized'].all()
    assert not torch.equal(weights['teacher.module.head.fc.weight'], weights['student.head.fc.weight'])
    assert weights['pseudo_labels.threshold.overall'] > 0.4


def test_train__validates_student_and_teacher_and_logs_the_pseudo_labels(folder, whole_run):
    import json

    scalars = next((folder / 'whole').glob('*/vis_data/scalars.json')).read_text().splitlines()
    scalars = [json.loads(line) for line in scalars]
    step = scalars[0]
    assert {'loss', 'loss_unsup', 'loss_anchor', 'pseudo_ratio', 'pseudo_acc', 'pseudo_threshold'} <= step.keys()
    scores = [line for line in scalars if 'teacher/accuracy/top1' in line]
    assert len(scores) == 2 and 'student/accuracy/top1' in scores[0]
    assert list((folder / 'whole').glob('best_teacher_accuracy_top1_iter_*.pth'))


def test_to_stock__of_each_part_loads_strictly_into_the_stock_model(folder, whole_run, monkeypatch):
    from mmengine.config import Config
    from mmengine.registry import MODELS, DefaultScope

    config = Config.fromfile(folder / 'config.py').model.classifier
    config.head = dict(type='LinearClsHead', num_classes=3, in_channels=16)
    tool = str(ROOT / 'tools' / 'model_converters' / 'to_stock.py')
    monkeypatch.syspath_prepend(str(Path(tool).parent))
    for part, prefix in (('student', 'student.'), ('teacher', 'teacher.module.')):
        arguments = [folder / 'whole' / 'iter_40.pth', folder / f'{part}.pth', '--part', part, '--trust']
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
        runpy.run_path(tool, run_name='__main__')
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            model = MODELS.build(config)
        weights = torch.load(folder / f'{part}.pth', weights_only=True)['state_dict']
        model.load_state_dict(weights, strict=True)
        assert torch.equal(model.head.fc.weight, whole_run['state_dict'][f'{prefix}head.fc.weight'])
