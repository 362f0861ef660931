"""Time and memory of a training step with semantic anchors against the stock step.

    python tools/benchmarks/train_step.py --out train_step.json

builds each model twice, as it is and with ``SAR`` in front of its head's type, from random weights, and times full
steps of both side by side on a random batch: forward, losses, backward, the config's own optimizer. With random weights
the gate of the anchors is closed, but the pull costs what it always does: it is computed in every step and multiplied
by the gate. What the anchors cost does not depend on the batch: small ones overstate their share. ``--plain`` adds a
third training, whose pull is the plain formula (``SAR_MM_PULL=plain``).

Memory is that of weights, buffers and optimizer, and what the step holds at its peak. Host waits are counted in a
profile of a step: what makes the host wait for a GPU, also where there is none. ``--processes 2`` trains by
DistributedDataParallel on this machine (gloo on CPUs, NCCL on GPUs) and counts collectives and the numbers they carry.
"""

import argparse
import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Dict, List, Optional, Sequence

from benchmark_arguments import add_common_arguments, positive
from stock_models import STOCK, add_model_arguments, check_model_arguments

KINDS = ('stock', 'sar')
ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20


def parse_arguments(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser, models=list(STOCK))
    parser.add_argument('--amp', choices=['fp16', 'bf16'], help='mixed precision')
    parser.add_argument('--compile', action='store_true', help='compile the forward pass')
    parser.add_argument('--plain', action='store_true', help='compare with the plain formula of the pull, too')
    parser.add_argument('--processes', type=positive, default=1, help='default 1')
    add_common_arguments(parser, rounds=10)
    args = parser.parse_args(arguments)
    import torch  # which --help does not wait for
    from measure import use_device

    args.device = use_device(parser, args)
    check_model_arguments(parser, args)
    if args.amp and args.device.type == 'cpu':
        parser.error(f'argument --amp: {args.amp} needs a GPU: mmengine has no mixed precision on CPUs')
    if args.device.type == 'cuda' and args.processes > torch.cuda.device_count():
        parser.error(f'argument --processes: {args.processes} are more than the {torch.cuda.device_count()} GPUs')
    if args.processes > 1 and not args.threads:
        args.threads = max(1, torch.get_num_threads() // args.processes)
        torch.set_num_threads(args.threads)  # which the head of the report names
    return args


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_arguments()

import torch
from measure import (
    collectives,
    host_waits,
    label_map,
    made_with,
    median_times,
    peak_memory,
    report,
    table,
    trace,
)
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

from sar_mm import allow_bases
from sar_mm.engine.data_parallel import SARDistributedDataParallel, projector_parameters

# ----- The two models


def read_config(stock: str, kind: str, size: Sequence[int]) -> Config:
    """Return the stock config, for images of another size, or its SAR version."""
    allow_bases()
    base = stock if '::' in stock else str(ROOT / stock)
    cfg = Config.fromstring(f'_base_ = {base!r}\n', '.py')
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))  # as the Runner does
    if 'size' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.size = tuple(size)
    if 'img_size' in cfg.model.backbone:
        cfg.model.backbone.img_size = tuple(size)
    if kind != 'stock':
        head_of(cfg.model).type = f'SAR{head_of(cfg.model).type}'
    return cfg


def head_of(model: dict) -> dict:
    return model['decode_head'] if 'decode_head' in model else model['head']


def make_batch(cfg: Config, count: int, size: Sequence[int]) -> dict:
    """Return random images and labels, as a data loader of the config gives them."""
    generator = torch.Generator().manual_seed(0)
    channels = cfg.model.backbone.get('in_channels', 3)
    images = torch.randint(256, (count, channels, *size), generator=generator, dtype=torch.uint8)
    num_classes = head_of(cfg.model)['num_classes']
    if cfg.default_scope == 'mmpretrain':
        from mmpretrain.structures import DataSample

        labels = torch.randint(num_classes, (count,), generator=generator)
        return dict(inputs=images, data_samples=[DataSample().set_gt_label(int(label)) for label in labels])
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    samples = []
    for label in label_map((count, *size), num_classes):
        sample = SegDataSample(metainfo=dict(img_shape=tuple(size), ori_shape=tuple(size)))
        sample.gt_sem_seg = PixelData(data=label[None])
        samples.append(sample)
    return dict(inputs=list(images), data_samples=samples)


class Training:
    """A model, its optimizer and a batch; calling it makes a training step."""

    def __init__(self, cfg: Config, kind: str, batch_size: int, size: Sequence[int], args: argparse.Namespace) -> None:
        self.pull = 'plain' if kind == 'plain' else 'auto'
        device, scope = args.device, cfg.default_scope
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(scope), MODELS.switch_scope_and_registry(scope) as registry:
            # Without init_weights(): it would fetch checkpoints.
            model = registry.build(cfg.model)
            if device.type == 'cpu' or args.processes == 1:
                model = revert_sync_batchnorm(model)
            self.model = model.to(device).train()
            if args.amp:
                dtype = dict(fp16='float16', bf16='bfloat16')[args.amp]
                cfg.optim_wrapper.update(type='AmpOptimWrapper', dtype=dtype, loss_scale='dynamic')
            self.optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        for group in self.optim_wrapper.param_groups:
            group['lr'] = 1e-6  # the full rate without the schedule's warm-up may not end in finite weights
        torch.backends.cudnn.benchmark = cfg.get('env_cfg', {}).get('cudnn_benchmark', False)
        if args.compile:
            model.forward = torch.compile(model.forward)  # as mmengine does
        self.wrapped = model
        if args.processes > 1:
            device_ids = [device.index] if device.type == 'cuda' else None
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # mmengine's name for an option is one that torch deprecates
                self.wrapped = SARDistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)
        self.batch = model.data_preprocessor(make_batch(cfg, batch_size, size), training=True)

    def __call__(self) -> None:
        os.environ['SAR_MM_PULL'] = self.pull
        with self.optim_wrapper.optim_context(self.wrapped):
            losses = self.wrapped(**self.batch, mode='loss')
            loss, _ = self.model.parse_losses(losses)
        self.loss = loss.detach()
        self.optim_wrapper.update_params(loss)

    def resident_bytes(self) -> int:
        """Return the bytes that are held between two steps, the batch aside."""
        parameters = list(self.model.parameters())
        tensors = [*parameters, *self.model.buffers(), *(p.grad for p in parameters if p.grad is not None)]
        for state in self.optim_wrapper.optimizer.state.values():
            tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
        if self.wrapped is not self.model:  # its buckets are as large as the gradients that it sends
            own = {id(each) for each in projector_parameters(self.model).values()}
            tensors += [p for p in parameters if p.requires_grad and id(p) not in own]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


# ----- The measurement


def measure(name: str, args: argparse.Namespace) -> dict:
    """Return the row of a model."""
    stock = STOCK[name]
    size = args.size or stock.size
    kinds = (*KINDS, 'plain') if args.plain else KINDS
    configs = {kind: read_config(stock.config, kind, size) for kind in kinds}
    on_gpu = args.device.type == 'cuda'
    batch = args.batch_size or (configs['stock'].train_dataloader.batch_size if on_gpu else stock.cpu_batch)
    trainings = {kind: Training(cfg, kind, batch, size, args) for kind, cfg in configs.items()}
    ms = median_times(trainings, args.device, args.rounds)
    for kind, training in trainings.items():
        if not training.loss.isfinite():
            sys.exit(f'error: the loss of {name} ({kind}) is {training.loss.item()}, which takes times of its own')
    memory = {
        kind: (training.resident_bytes() + peak_memory(training, args.device)) / MIB
        for kind, training in trainings.items()
    }
    traces = {kind: trace(training, args.device) for kind, training in trainings.items()}
    waits = {kind: host_waits(events, args.device) for kind, events in traces.items()}
    row = dict(
        model=name,
        config=stock.config,
        batch_size=batch,
        size=list(size),
        processes=args.processes,
        amp=args.amp,
        compile=args.compile,
        ms=ms,
        time_ratio=ms['sar'] / ms['stock'],
        memory_mib=memory,
        memory_ratio=memory['sar'] / memory['stock'],
        host_waits=waits,
        host_waits_added=added(waits),
    )
    if args.plain:
        row.update(plain_time_ratio=ms['plain'] / ms['sar'], plain_memory_ratio=memory['plain'] / memory['sar'])
    if args.processes > 1:
        calls, numbers = zip(*(collectives(traces[kind]) for kind in KINDS))
        calls = dict(zip(KINDS, calls))
        row.update(collectives=calls, collectives_added=added(calls), communicated_numbers=dict(zip(KINDS, numbers)))
    return row


def added(counts: Dict[str, Dict[str, int]]) -> int:
    return sum(counts['sar'].values()) - sum(counts['stock'].values())


def measure_all(args: argparse.Namespace) -> List[dict]:
    """Return the rows of all models, measured in this process or, by rank 0, in several."""
    if args.processes == 1:
        return measure_each(args)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(run_rank, args=(args, folder), nprocs=args.processes)
        return json.loads(Path(folder, 'rows.json').read_text())


def run_rank(rank: int, args: argparse.Namespace, folder: str) -> None:
    """Measure as one of several processes; rank 0 writes the rows into ``folder``."""
    torch.set_num_threads(args.threads)
    if args.device.type == 'cuda':
        args.device = torch.device('cuda', rank)
        torch.cuda.set_device(rank)
    torch.distributed.init_process_group(
        'nccl' if args.device.type == 'cuda' else 'gloo',
        init_method=f'file://{folder}/meeting_point',
        rank=rank,
        world_size=args.processes,
    )
    rows = measure_each(args, rank)
    if rank == 0:
        Path(folder, 'rows.json').write_text(json.dumps(rows))
    torch.distributed.destroy_process_group()


def measure_each(args: argparse.Namespace, rank: int = 0) -> List[dict]:
    """Return the rows of all models as one process measures them."""
    MMLogger.get_instance('benchmark', log_level='WARNING')  # else mmengine names the options of every weight
    rows = []
    for name in args.models:
        if rank == 0:
            print(f'{name} ...', file=sys.stderr, flush=True)
        rows.append(measure(name, args))
    return rows


# ----- The report


def render(rows: Sequence[dict]) -> str:
    """Return the rows as a Markdown table."""
    columns = ['model', 'batch', 'size', 'stock ms', 'SAR ms', 'time ratio', 'stock MiB', 'SAR MiB', 'memory ratio']
    columns += ['host waits added']
    columns += ['plain / SAR, time', 'plain / SAR, memory'] if 'plain_time_ratio' in rows[0] else []
    if rows[0]['processes'] > 1:
        columns += ['collectives added', 'numbers communicated, ratio']
    lines = []
    for row in rows:
        line = [row['model'], str(row['batch_size']), 'x'.join(map(str, row['size']))]
        line += [*(f'{row["ms"][kind]:.1f}' for kind in KINDS), f'{row["time_ratio"]:.3f}']
        line += [*(f'{row["memory_mib"][kind]:.0f}' for kind in KINDS), f'{row["memory_ratio"]:.3f}']
        line += [str(row['host_waits_added'])]
        line += [f'{row[name]:.3f}' for name in ('plain_time_ratio', 'plain_memory_ratio') if name in row]
        if row['processes'] > 1:
            numbers = row['communicated_numbers']
            line += [str(row['collectives_added']), f'{numbers["sar"] / numbers["stock"]:.3f}']
        lines.append(line)
    return table(columns, lines)


def main(args: argparse.Namespace) -> None:
    rows = measure_all(args)
    head = made_with(args.device)
    if args.processes > 1:
        head.update(processes=str(args.processes))
    report(args, head, rows, render(rows))


if __name__ == '__main__':
    main(ARGS)
