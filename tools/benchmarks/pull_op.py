"""Time and memory of the pull of features to their anchors, forward and backward, against other ways to compute it.

    python tools/benchmarks/pull_op.py --out pull_op.json

times, side by side: ``ours``, sar_mm.ops.pull_loss; ``gather``, which looks the anchor of every pixel up;
``published``, the published formulation, a matrix product of a one-hot map and the anchors; and what the memory allows:
``copy``, a copy of the feature into memory that is there, and ``clone``, one into new memory, such as every gradient
needs; on a CPU, the first touch of new memory can take longer than the copy. The three ways must agree in value and
gradient, or nothing is timed.

Memory is the peak of a step beyond the gradient of the feature, in percent of the feature. The shares of the bandwidth
are those of ``ours``: it has to move three features (read forward, read and written backward), a copy moves two. On a
GPU a time is that of the GPU; the host is ahead, as in training.
"""

import argparse
import itertools
import sys
from typing import Callable, Dict, Optional, Sequence

from benchmark_arguments import add_common_arguments, positive

# The gradient that reaches the loss, as from a loss scaler: float16 could not hold that of a mean over so many pixels.
SCALE = 2.0**16
# How far two ways may be apart: values, as sums in float32; gradients, as these are rounded to the feature's dtype.
VALUE_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = dict(float32=1e-5, bfloat16=1e-2, float16=2e-3)
COPIES = ('copy', 'clone')


def parse_arguments(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shape_help = 'of the feature; default 4 720 128 256 on a GPU, 2 270 128 256 on a CPU'
    parser.add_argument('--shape', type=positive, nargs=4, metavar=tuple('NCHW'), help=shape_help)
    parser.add_argument('--num-classes', type=positive, nargs='+', default=[19, 150], help='default 19 150')
    dtypes_help = 'default float32, and bfloat16 on a GPU'
    parser.add_argument('--dtypes', nargs='+', choices=list(GRADIENT_TOLERANCE), help=dtypes_help)
    parser.add_argument('--channels-last', action='store_true', help='measure features in this layout, too')
    add_common_arguments(parser, rounds=15)
    args = parser.parse_args(arguments)
    from measure import use_device  # imports PyTorch, which --help does not wait for

    args.device = use_device(parser, args)
    is_gpu = args.device.type == 'cuda'
    args.shape = args.shape or ((4, 720, 128, 256) if is_gpu else (2, 270, 128, 256))
    args.dtypes = args.dtypes or (['float32', 'bfloat16'] if is_gpu else ['float32'])
    return args


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_arguments()

import torch
import torch.nn.functional as F
from measure import (
    IGNORED,
    label_map,
    made_with,
    median_times,
    peak_memory,
    report,
    table,
)
from torch import Tensor

from sar_mm.ops import pull_loss


def ours(feature: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
    return pull_loss(feature, labels, anchors, IGNORED)


def gather(feature: Tensor, labels: Tensor, anchors: Tensor) -> Tensor:
    valid = labels != IGNORED
    centre = anchors[labels * valid].movedim(-1, 1)
    return ((feature.float() - centre).square().mean(dim=1) * valid).sum() / valid.sum()


def published(feature: Tensor, labels: Tensor, anchors: Tensor, ignored: int = IGNORED) -> Tensor:
    num_classes, channels = anchors.shape
    valid = labels != ignored
    # Ignored pixels are one class more, whose anchor is zero.
    one_hot = F.one_hot(labels.masked_fill(~valid, num_classes), num_classes + 1).float()
    centre = (one_hot @ F.pad(anchors, (0, 0, 0, 1))).movedim(-1, 1)
    error = F.mse_loss(feature.float(), centre, reduction='none') * valid.unsqueeze(1)
    if valid.sum() > 0:
        return error.sum() / (channels * valid.sum())
    return error.sum() * 0


FORMULATIONS: Dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = dict(
    ours=ours, gather=gather, published=published
)


def measure(
    shape: Sequence[int], num_classes: int, dtype: str, channels_last: bool, device: torch.device, rounds: int
) -> dict:
    """Return the row of one number of classes, dtype and layout."""
    generator = torch.Generator(device).manual_seed(0)
    feature = torch.randn(shape, generator=generator, device=device, dtype=torch.float32).to(getattr(torch, dtype))
    if channels_last:
        feature = feature.contiguous(memory_format=torch.channels_last)
    feature.requires_grad_()
    anchors = torch.randn(num_classes, shape[1], generator=generator, device=device)
    labels = label_map((shape[0], *shape[2:]), num_classes).to(device)
    scale = torch.tensor(SCALE, device=device)

    def make_step(name: str) -> Callable[[], None]:
        def step() -> None:
            feature.grad = None
            FORMULATIONS[name](feature, labels, anchors).backward(scale)

        return step

    check_agreement(feature, labels, anchors, GRADIENT_TOLERANCE[dtype])
    steps = {name: make_step(name) for name in FORMULATIONS}
    feature_bytes = feature.numel() * feature.element_size()
    extra = {}
    for name, step in steps.items():
        feature.grad = None
        extra[name] = 100 * (peak_memory(step, device) - feature_bytes) / feature_bytes
    source = feature.detach()
    target = torch.empty_like(source)
    steps.update(copy=lambda: target.copy_(source), clone=lambda: source.clone())
    ms = median_times(steps, device, rounds)
    return dict(
        num_classes=num_classes,
        dtype=dtype,
        layout='channels_last' if channels_last else 'contiguous',
        shape=list(shape),
        ms=ms,
        gather_over_ours=ms['gather'] / ms['ours'],
        published_over_ours=ms['published'] / ms['ours'],
        extra_memory_percent=extra,
        bandwidth_share_percent={name: 100 * (3 / ms['ours']) / (2 / ms[name]) for name in COPIES},
    )


def check_agreement(feature: Tensor, labels: Tensor, anchors: Tensor, tolerance: float) -> None:
    """End the program unless all ways give the same value and gradient."""
    expected = None
    for name in reversed(list(FORMULATIONS)):
        feature.grad = None
        value = FORMULATIONS[name](feature, labels, anchors)
        value.backward(torch.full_like(value, SCALE))
        value, gradient = value.item(), feature.grad
        if expected is None:
            expected = name, value, gradient, gradient.abs().max()
            continue
        other, other_value, other_gradient, largest = expected
        if not abs(value - other_value) <= VALUE_TOLERANCE * abs(other_value):
            sys.exit(f'error: {name} gives {value:.6g}, {other} gives {other_value:.6g}')
        apart = ((gradient - other_gradient).abs().max() / largest).item()
        if not apart <= tolerance:
            sys.exit(f'error: the gradients of {name} and {other} are apart by {apart:.1e} of the largest')


def render(rows: Sequence[dict]) -> str:
    """Return the rows as a Markdown table."""
    ways = list(FORMULATIONS)
    columns = ['K, dtype, layout', *(f'{name} ms' for name in (*ways, *COPIES)), 'gather / ours', 'published / ours']
    columns += [*(f'{name} memory %' for name in ways), *(f'bandwidth, % of {name}' for name in COPIES)]
    lines = []
    for row in rows:
        line = [f'{row["num_classes"]}, {row["dtype"]}, {row["layout"]}']
        line += [f'{row["ms"][name]:.4g}' for name in (*ways, *COPIES)]
        line += [f'{row["gather_over_ours"]:.2f}', f'{row["published_over_ours"]:.2f}']
        line += [f'{row["extra_memory_percent"][name]:.1f}' for name in ways]
        line += [f'{row["bandwidth_share_percent"][name]:.0f}' for name in COPIES]
        lines.append(line)
    return table(columns, lines)


def main(args: argparse.Namespace) -> None:
    layouts = [False, True] if args.channels_last else [False]
    rows = []
    for num_classes, dtype, channels_last in itertools.product(args.num_classes, args.dtypes, layouts):
        layout = ', channels_last' if channels_last else ''
        print(f'{num_classes} classes, {dtype}{layout} ...', file=sys.stderr, flush=True)
        rows.append(measure(args.shape, num_classes, dtype, channels_last, args.device, args.rounds))
    report(args, made_with(args.device), rows, render(rows))


if __name__ == '__main__':
    main(ARGS)
