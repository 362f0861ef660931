"""What the processes of the tests do: the same work for one process and for several.

The tests start processes that import this module and call :func:`work`.
"""

import os
from collections import Counter
from datetime import timedelta

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from small_models import gate_of, head_of, make_batch, make_model

from sar_mm.engine.data_parallel import SARDistributedDataParallel


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


def train_without_projectors(job, rank, world):
    """States every ``interval`` steps with MMDistributedDataParallel and without the projector's gradients, and how
    many numbers each sends in a step; ``job['change']`` is added to the projector of process 1 after step 3.
    """
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    found = {}
    for wrapper, options in ((MMDistributedDataParallel, {}), (SARDistributedDataParallel, dict(check_interval=5))):
        torch.manual_seed(rank)
        model = wrapper(module=make_model(**job['model']), device_ids=None, broadcast_buffers=False, **options)
        sent, states = [], []

        def count(state, bucket, sent=sent):
            sent.append(bucket.buffer().numel())
            return allreduce_hook(state, bucket)

        model.register_comm_hook(None, count)
        optimizer = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=0.01))
        for step in range(job['steps']):
            model.train_step(make_batch(job['model']['kind'], step, rank, world), optimizer)
            if step == 2 and rank == 1 and wrapper is SARDistributedDataParallel and job.get('change'):
                with torch.no_grad():
                    head_of(model).anchor_head.projector[0].weight.add_(job['change'])
            if (step + 1) % job['interval'] == 0:
                states.append(state_of(model))
        moments = [each for state in optimizer.optimizer.state.values() for each in state.values()]
        found[wrapper.__name__] = states, sum(sent) / job['steps'], moments
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
