"""Several processes: what they agree on, and what SAR sends between them.

The processes load this very file and run one of the functions under "Work".
"""

import copy
import importlib
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch.utils.checkpoint import checkpoint

ROOT = Path(__file__).parents[2]
TOOLBOX = dict(seg='mmseg', cls='mmpretrain')
KINDS = list(TOOLBOX)
NUM_CLASSES = 5
PULLED = dict(pull_weight=10.0)  # so that the pull is no detail of the gradient


# ----- Tiny models without a norm that mixes samples, and batches that fall to pieces


def make_model(kind, anchor_head=None, sar=True, state=None, **head):
    """Build a model, always from the same seed; ``head`` has further options of the decode or classification head."""
    importlib.import_module(f'{TOOLBOX[kind]}.models')
    importlib.import_module('sar_mm.models')
    registry = importlib.import_module(f'{TOOLBOX[kind]}.registry').MODELS
    norm_cfg = dict(type='GN', num_groups=4)
    stages = dict(depth=18, num_stages=2, stem_channels=8, base_channels=8, norm_cfg=norm_cfg)
    stages.update(strides=(1, 2), dilations=(1, 1))
    head.update(num_classes=NUM_CLASSES, in_channels=16)
    if sar:
        head.update(anchor_head=anchor_head or {})
    prefix = 'SAR' if sar else ''
    if kind == 'seg':
        head.update(type=f'{prefix}FCNHead', in_index=1, channels=16, num_convs=1, concat_input=False)
        head.update(norm_cfg=norm_cfg)
        backbone = dict(type='ResNet', out_indices=(0, 1), **stages)
        config = dict(type='EncoderDecoder', backbone=backbone, decode_head=head, train_cfg={}, test_cfg={})
    else:
        head.update(type=f'{prefix}LinearClsHead')
        backbone = dict(type='ResNet_CIFAR', out_indices=(1,), **stages)
        config = dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(TOOLBOX[kind]):
        model = registry.build(config)
    model.init_weights()
    if state is not None:
        model.load_state_dict(state)
    return model.train()


def head_of(model):
    model = getattr(model, 'module', model)
    return model.decode_head if hasattr(model, 'decode_head') else model.head


def gate_of(losses):
    (gate,) = (float(value) for name, value in losses.items() if name.endswith('anchor_gate'))
    return gate


def make_batch(kind, step=0, rank=0, world=1):
    """The part of a process of the batch of a step; in its first half, nearly all is not pulled."""
    generator = torch.Generator().manual_seed(step)
    samples = []
    if kind == 'seg':
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        images = torch.randn(4, 3, 32, 32, generator=generator)
        for index in range(4):
            label = torch.randint(NUM_CLASSES, (1, 32, 32), generator=generator)
            label[torch.rand(1, 32, 32, generator=generator) < (0.9 if index < 2 else 0.1)] = 255
            meta = dict(img_shape=(32, 32), ori_shape=(32, 32), pad_shape=(32, 32))
            samples.append(SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=label)))
    else:
        from mmpretrain.structures import DataSample

        images = torch.randn(16, 3, 16, 16, generator=generator)
        labels = torch.randint(NUM_CLASSES, (16,), generator=generator)
        labels[1:8] = 0  # which the tests do not pull
        samples = [DataSample().set_gt_label(label) for label in labels]
    part = slice(len(images) * rank // world, len(images) * (rank + 1) // world)
    return dict(inputs=images[part], data_samples=samples[part])


NOT_PULLED = dict(seg=255, cls=0)


# ----- Work, the same for one process and for several


def wrap(model):
    if not torch.distributed.is_initialized():
        return model
    options = dict(device_ids=None, broadcast_buffers=False, find_unused_parameters=False)
    return MMDistributedDataParallel(module=model, **options)


def state_of(model):
    """The parameters and buffers, by their names in the model without a wrapper."""
    return {name.replace('module.', '', 1): value.clone() for name, value in model.state_dict().items()}


def gradients(job, rank, world):
    """For each model, the gradients of one step by name, and the semantic anchors."""
    found = []
    for options in job['models']:
        model = wrap(make_model(**options))
        losses = model(**make_batch(options['kind'], 0, rank, world), mode='loss')
        total, _ = getattr(model, 'module', model).parse_losses(losses)
        total.backward()
        assert gate_of(losses) == 1
        grads = {name.replace('module.', '', 1): each.grad for name, each in model.named_parameters()}
        found.append((grads, head_of(model).anchor_head.semantic_anchors))
    return found


def train(job, rank, world):
    """The model's state after every ``interval`` of ``steps``, and the gate and the loss of every step."""
    torch.manual_seed(rank)  # of the dropout
    model = wrap(make_model(**job['model']))
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), **job['sgd']))
    states, gates, losses = [], [], []
    for step in range(job['steps']):
        log = model.train_step(make_batch(job['model']['kind'], step, rank, world), optimizer)
        gates.append(gate_of(log))
        losses.append(float(log['loss']))
        if (step + 1) % job['interval'] == 0:
            states.append(state_of(model))
    return states, gates, losses


def train_sharded(job, rank, world):
    """What :func:`train` finds, the same with mmengine's FSDP strategy, the number of the model's units, and what it is
    after an ordinary checkpoint is loaded into it.
    """
    replicated = train(job, rank, world)
    from mmengine._strategy import FSDPStrategy
    from torch.distributed.fsdp import FullyShardedDataParallel, StateDictType

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
    torch.manual_seed(rank)
    # Units have as many parameters as a stage of the backbone, and more than the head.
    policy = dict(type='torch.distributed.fsdp.wrap.size_based_auto_wrap_policy', min_num_params=5000)
    strategy = FSDPStrategy(
        model_wrapper=dict(type='MMFullyShardedDataParallel', device_id='cpu', auto_wrap_policy=policy),
        state_dict_cfg='full',
        work_dir=job['folder'],
        env_kwargs=dict(randomness=dict(seed=0)),
    )
    optimizer = dict(type='OptimWrapper', optimizer=dict(type='SGD', **job['sgd']))
    model, optimizer = strategy.prepare(make_model(**job['model']), optim_wrapper=optimizer)
    units = len(FullyShardedDataParallel.fsdp_modules(model))
    gates, losses = [], []
    for step in range(job['steps']):
        log = model.train_step(make_batch(job['model']['kind'], step, rank, world), optimizer)
        gates.append(gate_of(log))
        losses.append(float(log['loss']))
    states = []
    torch.save(dict(state_dict=job['model']['state']), f'{job["folder"]}/{rank}.pth')
    for is_loaded in (False, True):
        if is_loaded:
            strategy.load_checkpoint(f'{job["folder"]}/{rank}.pth')
        with FullyShardedDataParallel.state_dict_type(model, StateDictType.FULL_STATE_DICT):
            states.append(state_of(model))
    return replicated, (states, gates, losses), units


def sharded_steps(job, rank, world):
    """For each case, the losses and the semantic anchors of two steps with FSDP, or the error that came."""
    from mmengine.model import MMFullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    found = []
    for case in job['cases']:
        model = make_model(**case['model'])
        head = head_of(model)
        policy = ModuleWrapPolicy({type(head)}) if case.get('head_is_unit') else None
        wrapper = case.get('wrapper', {})
        model = MMFullyShardedDataParallel(model, device_id='cpu', auto_wrap_policy=policy, **wrapper)
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        log = []
        try:
            for step in range(2):
                batch = make_batch(case['model']['kind'], step, rank, world)
                with torch.autocast('cpu', dtype=torch.bfloat16, enabled=case.get('autocast', False)):
                    losses = model(**batch, mode='loss')
                optimizer.update_params(model.module.parse_losses(losses)[0])
                log.append({name: value.detach() for name, value in losses.items()})
            found.append((log, head.anchor_head.semantic_anchors))
        except RuntimeError as error:
            found.append(str(error))
    return found


def collectives(job, rank, world):
    """For each model, how often each collective is called in every one of eight half steps."""
    found = []
    for options in job['models']:
        model = wrap(make_model(**options))
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01), accumulative_counts=2)
        optimizer.initialize_count_status(model, 0, 8)
        calls = []
        for step in range(8):
            batch = make_batch(options['kind'], step, rank, world)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                model.train_step(batch, optimizer)
            # Those of the reducer in C++ are among them.
            calls.append(Counter(event.name for event in profile.events() if event.name.startswith('c10d::')))
        found.append(calls)
    return found


def work(folder, rank, world):
    """What a process does."""
    job = torch.load(f'{folder}/job.pt', weights_only=False)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world, timeout=timedelta(seconds=100)
    )
    torch.save(globals()[job['work']](job, rank, world), f'{folder}/{rank}.pt')
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture
def run_processes(tmp_path, run_python):
    """Do the same work in several processes, and return what each of them found."""

    def run(world, function, **job):
        folder = tmp_path / f'{function.__name__}_{len(list(tmp_path.iterdir()))}'
        folder.mkdir()
        torch.save(dict(job, work=function.__name__, folder=str(folder)), folder / 'job.pt')
        script = 'import runpy; runpy.run_path({!r})["work"]({!r}, {}, {})'
        run_python(*(script.format(str(Path(__file__)), str(folder), rank, world) for rank in range(world)))
        return [torch.load(folder / f'{rank}.pt', weights_only=False) for rank in range(world)]

    return run


@pytest.fixture
def opened(open_gate):
    """Options of a model that pulls from the first step on."""

    def options(kind, anchor_head=None, **head):
        options = dict(kind=kind, anchor_head={'ignore_index': NOT_PULLED[kind], **(anchor_head or {})}, **head)
        pytest.importorskip(f'{TOOLBOX[kind]}.models')
        model = make_model(**options)
        open_gate(head_of(model))
        return dict(options, state=model.state_dict())

    return options


def equal(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def largest_difference(one, other):
    assert list(one) == list(other)
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def mean_of(parts):
    return {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}


# ----- One step


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_ddp__gradients_equal_those_of_one_process(kind, opened, run_processes):
    no_dropout = dict(dropout_ratio=0) if kind == 'seg' else {}
    options = [dict(sync_valid=True), dict(sync_valid=True, class_balanced=True), dict()]
    models = [opened(kind, dict(loss=dict(each, pull_weight=10.0)), **no_dropout) for each in options]
    expected = gradients(dict(models=models), 0, 1)
    # What the last of them is to find in two processes: each part of the batch on its own, and the mean of both.
    mean_of_means = mean_of([gradients(dict(models=models[2:]), rank, 2)[0][0] for rank in range(2)])
    assert largest_difference(mean_of_means, expected[2][0]) > 1e-2
    expected[2] = (mean_of_means, expected[2][1])
    for results in run_processes(2, gradients, models=models):
        for (found, anchors), (expected_gradients, expected_anchors) in zip(results, expected):
            assert largest_difference(found, expected_gradients) < 1e-5
            assert torch.equal(anchors, expected_anchors)


@pytest.mark.slow
@pytest.mark.parametrize('kind', [pytest.param('seg', marks=pytest.mark.ci), 'cls'])
def test_ddp__collectives_are_those_of_the_stock_model(kind, opened, run_processes):
    models = [
        dict(kind=kind, sar=False),
        opened(kind),
        opened(kind, dict(loss=dict(sync_valid=True))),
        opened(kind, dict(loss=dict(sync_valid=True, class_balanced=True))),
    ]
    for stock, sar, *synced in run_processes(2, collectives, models=models):
        # One bucket of gradients, in every second half step; DDP makes its buckets anew once.
        assert stock[-2:] == [Counter(), Counter({'c10d::allreduce_': 1})]
        assert sar == stock
        for calls in synced:
            assert calls == [each + Counter({'c10d::allreduce_': 1}) for each in stock]


# ----- Many steps


@pytest.mark.slow
@pytest.mark.parametrize('world', [pytest.param(2, marks=pytest.mark.ci), 4])
@pytest.mark.parametrize('kind', KINDS)
def test_ddp__processes_stay_bit_identical(kind, world, run_processes):
    pytest.importorskip(f'{TOOLBOX[kind]}.models')
    job = dict(model=dict(kind=kind, anchor_head=dict(momentum=0.9)), steps=200, interval=50)
    job.update(sgd=dict(lr=0.05, momentum=0.9, weight_decay=1e-4))
    (states, gates, losses), *others = run_processes(world, train, **job)
    assert gates[0] == 0 and sum(gates) > 100
    names = [name for name in states[0] if '.anchor_head.' in name]
    assert {name.split('anchor_head.')[1] for name in names} > {'anchors', 'semantic_anchors', 'initialized'}
    assert len(states) == 4 and not equal(states[2], states[3])
    for other_states, other_gates, other_losses in others:
        assert other_losses != losses  # the data differ
        assert other_gates == gates
        assert all(equal(one, other) for one, other in zip(states, other_states))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['seg', pytest.param('cls', marks=pytest.mark.ci)])
def test_fsdp__trains_as_ddp_does(kind, opened, run_processes):
    job = dict(model=opened(kind, dict(momentum=0.9)), steps=20, interval=20, sgd=dict(lr=0.01, momentum=0.9))
    results = run_processes(2, train_sharded, **job)
    for (states, gates, losses), (sharded_states, sharded_gates, sharded_losses), units in results:
        assert units == 2  # the model, and a stage of its backbone
        assert sharded_gates == gates and sum(gates) > 10
        assert sharded_losses == pytest.approx(losses, rel=1e-3)
        assert largest_difference(sharded_states[0], states[0]) < 1e-3
        assert equal(sharded_states[0], results[0][1][0][0])
        assert equal(sharded_states[1], job['model']['state'])


@pytest.mark.ci
@pytest.mark.slow
def test_fsdp__autocast_and_half_parameters_keep_the_anchors_in_float32(opened, run_processes):
    model = opened('cls', dict(momentum=0.5))
    cases = [
        dict(model=model),
        dict(model=model, autocast=True),
        dict(model=model, wrapper=dict(mixed_precision=dict(param_dtype='bfloat16'))),
        dict(model=model, head_is_unit=True),
        dict(model=dict(kind='cls', sar=False), head_is_unit=True),
    ]
    results = run_processes(2, sharded_steps, cases=cases)
    for (expected, _), *low, first_error, second_error in results:
        unit_errors = [first_error, second_error]
        for index, (found, anchors) in enumerate(low, 1):
            assert anchors.dtype == torch.float32
            assert torch.equal(anchors, results[0][index][1])
            for losses, float_losses in zip(found, expected):
                assert gate_of(losses) == 1
                found_losses = {name: value.float() for name, value in losses.items()}
                torch.testing.assert_close(found_losses, float_losses, rtol=(1e-2, 5e-2)[index - 1], atol=5e-3)
        assert all(isinstance(error, str) for error in unit_errors)  # without SAR, too


# ----- One process: accumulated gradients, activation checkpointing


@pytest.mark.parametrize('kind', KINDS)
def test_accumulation__two_half_batches(kind, opened):
    options = opened(kind, dict(momentum=0.75))
    model, reference = make_model(**options), make_model(**options)
    for each in (model, reference):
        head_of(each).anchor_head.initialized.fill_(True)  # S is 0
    start = copy.deepcopy(dict(model.named_parameters()))
    anchor_head = head_of(model).anchor_head
    embedded = anchor_head.projector(anchor_head.anchors).detach()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2)
    optimizer.initialize_count_status(model, 0, 2)
    halves = []
    for rank in range(2):
        reference.zero_grad()
        torch.manual_seed(rank)
        losses = reference(**make_batch(kind, 0, rank, 2), mode='loss')
        assert gate_of(losses) == 1
        reference.parse_losses(losses)[0].backward()
        halves.append({name: each.grad.clone() for name, each in reference.named_parameters()})

        torch.manual_seed(rank)
        model.train_step(make_batch(kind, 0, rank, 2), optimizer)
        # Once per forward pass, each time towards the same embedded anchors.
        torch.testing.assert_close(anchor_head.semantic_anchors, (1 - 0.75 ** (rank + 1)) * embedded)
        moved = [name for name, each in model.named_parameters() if not torch.equal(each, start[name])]
        assert bool(moved) == (rank == 1)
    for name, gradient in mean_of(halves).items():
        torch.testing.assert_close(dict(model.named_parameters())[name], start[name] - 0.1 * gradient)


def recompute(module, use_reentrant=False):
    module.forward = partial(checkpoint, module.forward, use_reentrant=use_reentrant)


def recompute_all(model):
    recompute(model.backbone)
    recompute(head_of(model))


def recompute_blocks(model):
    for block in (*model.backbone.layer1, *model.backbone.layer2):
        block.with_cp = True  # the option of the stock backbones


CHANGES = [
    (lambda model: recompute(model.backbone), {'backbone'}),
    (recompute_blocks, {'backbone'}),
    (lambda model: recompute(head_of(model)), {'head'}),
    (recompute_all, {'backbone', 'head'}),
]


@pytest.mark.filterwarnings('ignore:.*use_reentrant.*:UserWarning')
@pytest.mark.parametrize(('change', 'parts'), CHANGES, ids=['backbone', 'with_cp', 'head', 'both'])
@pytest.mark.parametrize('kind', KINDS)
def test_checkpointing__changes_nothing(kind, change, parts, opened):
    found = []
    for is_changed in (False, True):
        model = make_model(**opened(kind, dict(momentum=0.5)))
        if is_changed:
            change(model)
        calls = Counter()
        layers = dict(backbone=model.backbone.layer2[0].conv2, head=head_of(model).classifier_layer)
        for name, layer in layers.items():
            layer.register_forward_pre_hook(lambda *_, calls=calls, name=name: calls.update([name]))
        torch.manual_seed(0)  # of the dropout
        for step in range(2):
            losses = model(**make_batch(kind, step), mode='loss')
            model.parse_losses(losses)[0].backward()
            assert gate_of(losses) == 1
        found.append((losses, model.state_dict(), {name: each.grad for name, each in model.named_parameters()}, calls))
    (*expected, calls), (*recomputed, more_calls) = found
    assert set(more_calls - calls) == parts
    # Among the state, S: it moves once per step.
    assert all(equal(one, other) for one, other in zip(expected, recomputed))


@pytest.mark.filterwarnings('ignore:.*(requires_grad|use_reentrant).*:UserWarning')
@pytest.mark.parametrize('kind', KINDS)
def test_checkpointing__reentrant_head_is_refused(kind, opened):
    by_mmengine, by_hand = (make_model(**opened(kind)) for _ in range(2))
    turn_on_activation_checkpointing(by_mmengine, ['decode_head' if kind == 'seg' else 'head'])
    recompute(head_of(by_hand), use_reentrant=True)
    for model in (by_hand, by_mmengine):
        with pytest.raises(RuntimeError, match='use_reentrant=True runs the head twice'):
            model(**make_batch(kind), mode='loss')


# ----- The page docs/distributed.md


def settings():
    """The settings that the page has, by their headings."""
    page = (ROOT / 'docs' / 'distributed.md').read_text(encoding='utf-8')
    return dict(re.findall(r'^## ([^\n]+)\n(?:(?!^## )[^\n]*\n)*?```python\n(.*?)```', page, re.MULTILINE | re.DOTALL))


TRAINED = ['The mean over several processes', 'Gradient accumulation', 'FSDP', 'Activation checkpointing']


def test_settings__are_all_tested():
    assert list(settings()) == [*TRAINED, 'Mixed precision', 'torch.compile']
    found = {}
    exec(settings()['Mixed precision'] + settings()['torch.compile'], found)
    # See test_amp.py and test_compile.py: these take a GPU, or minutes.
    assert found['optim_wrapper'] == dict(type='AmpOptimWrapper', loss_scale='dynamic') and found['compile'] is True


@pytest.fixture(scope='module')
def workplace(tmp_path_factory):
    """A folder with data, and a function that runs shell commands there, at once, and returns what they print."""
    pytest.importorskip('mmseg.models')
    folder = tmp_path_factory.mktemp('distributed')
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    environment = dict(os.environ, PATH=path, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')

    def run(*commands):
        options = dict(cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        started = [subprocess.Popen(command, shell=True, **options) for command in commands]
        outputs = [process.communicate(timeout=300)[0] for process in started]
        for process, output in zip(started, outputs):
            assert process.returncode == 0, output[-3000:]
        return outputs

    run(f'python {ROOT}/tools/dataset_converters/digits.py')
    return folder, run


OVERRIDES = [
    *('train_cfg.max_iters=4', 'train_cfg.val_interval=100', 'train_dataloader.batch_size=2'),
    *('default_hooks.logger.interval=1', 'log_processor.window_size=1'),
    *('default_hooks.checkpoint.interval=100', 'default_hooks.checkpoint.save_last=False'),
]


def train_command(folder, settings='', overrides=(), processes=2, environment=''):
    """The command that trains the quickstart's model with these settings."""
    base = ROOT / 'configs' / 'quickstart' / 'sar_fcn_unet_1xb16-400iter_digit-scenes-64x64.py'
    config = folder / f'config_{len(list(folder.glob("config_*.py")))}.py'
    config.write_text(f'_base_ = {str(base)!r}\n{settings}')
    script = ROOT / 'tools' / 'dist_train.sh'
    return f'{environment} bash {script} {config} {processes} --cfg-options {" ".join([*OVERRIDES, *overrides])}'


def free_port():
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def losses_in(output):
    return [float(loss) for loss in re.findall(r'Iter\(train\) .* loss: ([\d.]+)', output)]


@pytest.fixture(scope='module')
def plain_losses(workplace):
    folder, run = workplace
    (output,) = run(train_command(folder, environment=f'PORT={free_port()}'))
    return losses_in(output)


@pytest.mark.slow
@pytest.mark.parametrize(
    'heading', [pytest.param(each, marks=[pytest.mark.ci] if each == 'FSDP' else []) for each in TRAINED]
)
def test_settings__train_on_two_processes(heading, workplace, plain_losses):
    folder, run = workplace
    overrides = ['strategy.model_wrapper.device_id=cpu'] if heading == 'FSDP' else []
    command = train_command(folder, settings()[heading], overrides, environment=f'PORT={free_port()}')
    losses = losses_in(run(command)[0])
    assert len(losses) == len(plain_losses) == 4
    if heading == 'Gradient accumulation':
        assert losses[0] == plain_losses[0] and losses[1] != plain_losses[1]
    else:
        assert losses == pytest.approx(plain_losses, rel=5e-3)


@pytest.mark.slow
def test_dist_train__two_nodes(workplace, plain_losses):
    folder, run = workplace
    address = f'NNODES=2 MASTER_ADDR=127.0.0.1 PORT={free_port()}'
    nodes = [f'{address} NODE_RANK={rank}' for rank in range(2)]
    outputs = run(*(train_command(folder, processes=1, environment=node) for node in nodes))
    # The process of rank 0 writes the log.
    assert losses_in(outputs[0]) == pytest.approx(plain_losses, abs=1e-3)
    assert 'GPU number: 2' in outputs[0]


def test_slurm_train__command(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\necho "$@"\n')
    srun.chmod(0o755)
    environment = dict(os.environ, PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}', GPUS='16', GPUS_PER_NODE='8')
    command = ['bash', str(ROOT / 'tools' / 'slurm_train.sh'), 'partition', 'job', 'config.py', '--resume']
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
    assert '-p partition --job-name=job --gres=gpu:8 --ntasks=16 --ntasks-per-node=8' in output
    assert output.endswith('tools/train.py config.py --launcher slurm --resume\n')
