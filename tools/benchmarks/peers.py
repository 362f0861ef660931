"""Time and memory of a training step with semantic anchors against other losses of the same features.

    python tools/benchmarks/peers.py --out peers.json

trains one segmentation model and one classifier, each as it is (``stock``) and with one more loss of the features in
front of its classifier, in the same head, on the same random batch, side by side, as train_step.py does:

SAR                      semantic anchors, as this package has them
SAR, published           the same with the published formulation of the pull: a one-hot map times the anchors, and an
                         unreduced squared error
center loss              sar_mm.baselines.CenterLossHead, whose centers are moving averages
center loss, all pairs   trained centers, and the distances of every feature to the centers of all classes, as common
                         implementations have it
proxy anchor             ProxyAnchorLoss of pytorch-metric-learning, which has no center loss
contrastive              supervised contrastive loss of 1,024 random valid pixels (--sample) with an embedding of 256
                         dimensions, the numbers of Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic
                         Segmentation", ICCV 2021; of images, all of the batch

The losses of a library take rows (N, C) and class indices (N,): the valid pixels. Without pytorch-metric-learning (`pip
install pytorch-metric-learning`) its row is left out. The optimizer trains proxies, centers and embeddings, too.
Memory and host waits are those of train_step.py.
"""

import argparse
import sys
from abc import abstractmethod
from importlib.util import find_spec
from typing import Any, Dict, List, Optional, Sequence

from benchmark_arguments import add_common_arguments, positive
from stock_models import STOCK, add_model_arguments, check_model_arguments

LIBRARY = 'pytorch_metric_learning'


def parse_arguments(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_arguments(parser, models=['segformer-b0', 'resnet50'])
    parser.add_argument('--sample', type=positive, default=1024, help='pixels that are contrasted; default 1024')
    add_common_arguments(parser, rounds=7)
    args = parser.parse_args(arguments)
    from measure import use_device  # imports PyTorch, which --help does not wait for

    args.device = use_device(parser, args)
    check_model_arguments(parser, args)
    args.processes, args.amp, args.compile = 1, None, False  # of train_step.Training
    return args


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_arguments()

import torch
import torch.nn.functional as F
from measure import host_waits, made_with, median_times, peak_memory, report, table, trace
from mmengine.logging import MMLogger
from pull_op import published
from torch import Tensor, nn
from train_step import MIB, Training, head_of, read_config

from sar_mm.baselines import CenterLossHead, SupervisedContrastiveHead
from sar_mm.models.feature_head import FeatureHead
from sar_mm.models.losses import SARLoss

# ----- The losses


def as_rows(feature: Tensor, target: Tensor) -> tuple:
    """Return features (N, C, ...) and class indices (N, ...) as rows (M, C) and (M,)."""
    return feature.movedim(1, -1).flatten(0, -2), target.flatten().long()


class PublishedSARLoss(SARLoss):
    """SARLoss whose pull is computed as published."""

    def pull(self, feature: Tensor, semantic_anchors: Tensor, **options) -> Tensor:
        ignored = options['ignore_index']
        return published(feature, options['target'].long(), semantic_anchors, -1 if ignored is None else ignored)


class ValidRowsHead(FeatureHead):
    """Base of losses that take the features and classes of valid pixels or images as rows."""

    def step(self, feature: Tensor, target: Tensor, classify: Any, weight: Optional[Tensor]) -> Dict[str, Tensor]:
        rows, labels = as_rows(feature.float(), target)
        valid = (labels >= 0) & (labels < self.num_classes)
        if self.ignore_index is not None:
            valid &= labels != self.ignore_index
        return dict(loss_peer=self.of_rows(rows[valid], labels[valid]))

    @abstractmethod
    def of_rows(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of features (M, C) and class indices (M,)."""


class AllPairsCenterHead(ValidRowsHead):
    """Center loss by the distances to all centers, which the optimizer trains."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        generator = torch.Generator().manual_seed(0)
        self.centers = nn.Parameter(torch.randn(self.num_classes, self.channels, generator=generator))

    def of_rows(self, rows: Tensor, labels: Tensor) -> Tensor:
        squares = rows.square().sum(dim=1, keepdim=True) + self.centers.square().sum(dim=1)
        distances = squares - 2 * (rows @ self.centers.t())
        return (distances * F.one_hot(labels, self.num_classes)).sum() / len(rows)


class ProxyAnchorHead(ValidRowsHead):
    """ProxyAnchorLoss of pytorch-metric-learning."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        from pytorch_metric_learning.losses import ProxyAnchorLoss

        self.of_library = ProxyAnchorLoss(self.num_classes, self.channels)

    def of_rows(self, rows: Tensor, labels: Tensor) -> Tensor:
        return self.of_library(rows, labels)


class SampledContrastiveHead(SupervisedContrastiveHead):
    """SupervisedContrastiveHead of a random sample of the valid pixels, without waiting for the GPU.

    Args:
        sample: Number of pixels.
        kwargs: See :class:`SupervisedContrastiveHead`.
    """

    def __init__(self, *args, sample: int, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.sample = sample

    def step(self, feature: Tensor, target: Tensor, classify: Any, weight: Optional[Tensor]) -> Dict[str, Tensor]:
        rows, labels = as_rows(feature, target)
        if len(rows) > self.sample:
            chance = torch.rand(len(rows), device=rows.device)
            if self.ignore_index is not None:
                chance = chance.masked_fill(labels == self.ignore_index, -1.0)
            chosen = chance.topk(self.sample, sorted=False).indices
            rows, labels = rows[chosen], labels[chosen]
        return super().step(rows, labels, classify, None)


def methods(sample: int) -> Dict[str, Optional[dict]]:
    """Return the options ``anchor_head`` of each method; None: the stock head."""
    found: Dict[str, Optional[dict]] = {
        'stock': None,
        'SAR': dict(),
        'SAR, published': dict(loss=dict(type=PublishedSARLoss)),
        'center loss': dict(type=CenterLossHead),
        'center loss, all pairs': dict(type=AllPairsCenterHead),
        f'contrastive, {sample} pixels': dict(type=SampledContrastiveHead, sample=sample, dim=256, temperature=0.1),
    }
    if find_spec(LIBRARY):
        found['proxy anchor'] = dict(type=ProxyAnchorHead)
    return found


# ----- The measurement


def measure(name: str, args: argparse.Namespace) -> dict:
    """Return the row of a model."""
    stock = STOCK[name]
    size = args.size or stock.size
    batch = args.batch_size or stock.cpu_batch
    if args.device.type == 'cuda' and not args.batch_size:
        batch = read_config(stock.config, 'stock', size).train_dataloader.batch_size
    trainings = {}
    for method, options in methods(args.sample).items():
        cfg = read_config(stock.config, 'stock' if options is None else 'sar', size)
        if options is not None:
            head_of(cfg.model).anchor_head = options
        trainings[method] = Training(cfg, 'sar', batch, size, args)
    ms = median_times(trainings, args.device, args.rounds)
    for method, training in trainings.items():
        if not training.loss.isfinite():
            sys.exit(f'error: the loss of {name} ({method}) is {training.loss.item()}, which takes times of its own')
    memory = {
        method: (training.resident_bytes() + peak_memory(training, args.device)) / MIB
        for method, training in trainings.items()
    }
    waits = {
        method: sum(host_waits(trace(training, args.device), args.device).values())
        for method, training in trainings.items()
    }
    head = next(module for module in trainings['SAR'].model.modules() if isinstance(module, FeatureHead))
    return dict(
        model=name,
        config=stock.config,
        batch_size=batch,
        size=list(size),
        num_classes=head.num_classes,
        channels=head.channels,
        ms=ms,
        time_ratio={method: ms[method] / ms['stock'] for method in ms},
        memory_mib=memory,
        memory_ratio={method: memory[method] / memory['stock'] for method in ms},
        host_waits_added={method: waits[method] - waits['stock'] for method in ms},
    )


# ----- The report


def render(rows: Sequence[dict]) -> str:
    """Return a Markdown table for each model."""
    columns = ['method', 'ms', 'time / stock', 'MiB', 'memory / stock', 'host waits added']
    parts: List[str] = []
    for row in rows:
        lines = []
        for method in row['ms']:
            line = [method, f'{row["ms"][method]:.1f}', f'{row["time_ratio"][method]:.3f}']
            line += [f'{row["memory_mib"][method]:.0f}', f'{row["memory_ratio"][method]:.3f}']
            lines.append([*line, str(row['host_waits_added'][method])])
        size = 'x'.join(map(str, row['size']))
        numbers = f'batch {row["batch_size"]}, {size}, {row["num_classes"]} classes, {row["channels"]} channels'
        parts.append(f'{row["model"]}, {numbers}:\n\n{table(columns, lines)}')
    if any('proxy anchor' not in row['ms'] for row in rows):
        parts.append('ProxyAnchorLoss is left out: pytorch-metric-learning is not installed.')
    return '\n\n'.join(parts)


def main(args: argparse.Namespace) -> None:
    MMLogger.get_instance('benchmark', log_level='WARNING')  # else mmengine names the options of every weight
    head = made_with(args.device)
    if find_spec(LIBRARY):
        import pytorch_metric_learning

        head.update({'pytorch-metric-learning': pytorch_metric_learning.__version__})
    rows = []
    for name in args.models:
        print(f'{name} ...', file=sys.stderr, flush=True)
        rows.append(measure(name, args))
    report(args, head, rows, render(rows))


if __name__ == '__main__':
    main(ARGS)
