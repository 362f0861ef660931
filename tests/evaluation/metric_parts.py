"""What one process of several computes of the metrics, for the same data in all."""

import importlib.util
import json
from functools import partial
from pathlib import Path

import torch
from mmengine.registry import DefaultScope

import sar_mm  # noqa: F401
from sar_mm.analysis import FeatureStatistics
from sar_mm.registry import METRICS


def own(items, rank, world_size):
    """The items of a process; as samplers do, the first ones are repeated until all processes have as many."""
    missing = -len(items) % world_size
    return [*items, *items[:missing]][rank::world_size]


def accuracy(data, rank, world_size):
    metric = METRICS.build(dict(type='GroupAccuracy', class_counts=[500, 100, 50, 3]))
    pairs = list(zip(data['label'], data['prediction']))
    for label, prediction in own(pairs, rank, world_size):
        metric.process(None, [dict(gt_label=label[None], pred_label=prediction[None])])
    return metric.evaluate(len(pairs))


def feature_geometry(data, rank, world_size, batch):
    metric = METRICS.build(dict(type='FeatureGeometry'))
    metric.dataset_meta = dict(classes=tuple('abcd'))
    metric.set_reference(data['weight'], None)
    for part in torch.tensor(own(range(len(data['label'])), rank, world_size)).split(batch):
        metric.observe(data['feature'][part])
        metric.process(None, [dict(gt_label=label[None]) for label in data['label'][part]])
    return metric.evaluate(len(data['label']))


def iou(data, rank, world_size):
    if importlib.util.find_spec('mmseg') is None:
        return dict()
    with DefaultScope.overwrite_default_scope('mmseg'):
        metric = METRICS.build(dict(type='GroupIoUMetric', class_counts=[6, 3, 1, 0], common=0.5, rare=0.2))
    metric.dataset_meta = dict(classes=tuple('abcd'))
    pairs = list(zip(data['label_map'], data['predicted_map']))
    for label, prediction in own(pairs, rank, world_size):
        metric.process({}, [dict(gt_sem_seg=dict(data=label[None]), pred_sem_seg=dict(data=prediction[None]))])
    return {name: float(value) for name, value in metric.evaluate(len(pairs)).items()}


def statistics(data, rank, world_size):
    rows = slice(None) if world_size == 1 else slice(0, 10) if rank == 0 else slice(10, None)
    gathered = FeatureStatistics(4, 6)
    gathered.update(1e4 + data['feature'][rows].double(), data['label'][rows])
    total = gathered.reduce()
    numbers = {name: getattr(total, name).flatten().tolist() for name in ('count', 'mean', 'scatter', 'norm_sum')}
    return {f'{name}.{index}': value for name, values in numbers.items() for index, value in enumerate(values)}


def compute(data, rank, world_size):
    parts = dict(accuracy=accuracy, iou=iou, statistics=statistics)
    for batch in (1, 4):
        parts[f'batches of {batch}'] = partial(feature_geometry, batch=batch)
    found = {part: compute_part(data, rank, world_size) for part, compute_part in parts.items()}
    return {f'{part}/{name}': value for part, numbers in found.items() for name, value in numbers.items()}


def run(folder, rank, world_size):
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=world_size)
    print(json.dumps(compute(torch.load(Path(folder) / 'data.pt'), rank, world_size)))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
