"""Turn a checkpoint of this package into one that loads strictly into the stock model.

    python tools/model_converters/to_stock.py work_dirs/sar_fcn/iter_80000.pth fcn.pth
    python tools/model_converters/to_stock.py work_dirs/fixmatch/iter_20000.pth classifier.pth --part teacher
    python tools/model_converters/to_stock.py work_dirs/sar_resnet32/epoch_40.pth resnet32.pth --half

The weights of semantic anchors are dropped, also those of the authors' code; --keep-anchors leaves them, for a model
with anchors. Of a semi-supervised model, one part is taken, by default the teacher where there is one: ``student.X`` or
``teacher.module.X`` becomes ``X``. The optimizer's state and the logs are dropped as well. The weights that remain are
unchanged, or with --half rounded to half precision, which halves the file; a model loads them in its own precision.
"""

import argparse
import re
from functools import partial
from typing import Optional

from authors_names import is_authors_name
from checkpoint_arguments import add_checkpoint_arguments

# A teacher is mmengine's ExponentialMovingAverage, which holds the averaged model as its `module`.
PREFIXES = dict(student='student.', teacher='teacher.module.')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkpoint_arguments(parser)
    parser.add_argument('--part', choices=list(PREFIXES), help='of a semi-supervised model; default teacher, if any')
    parser.add_argument('--keep-anchors', action='store_true', help='for a model with semantic anchors')
    parser.add_argument('--half', action='store_true', help='round the weights to half precision')
    return parser.parse_args()


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

import torch
from torch import Tensor

from sar_mm.cli.conversion import Weights, convert_checkpoint
from sar_mm.cli.errors import report_errors

# What DistributedDataParallel and torch.compile put into the names of the model they wrap, where it was saved itself.
WRAPPERS = re.compile(r'^((module|_orig_mod)\.)+|(?<=\.)_orig_mod\.')


def to_stock(weights: Weights, part: Optional[str], keep_anchors: bool, half: bool = False) -> Weights:
    """Return the weights of the stock model, or with ``keep_anchors`` of the SAR model, in a checkpoint."""
    weights = {WRAPPERS.sub('', name): weight for name, weight in weights.items()}
    parts = [each for each, prefix in PREFIXES.items() if any(name.startswith(prefix) for name in weights)]
    is_semi_supervised = 'student' in parts
    if part is not None and not is_semi_supervised:
        raise ValueError(
            f'--part {part} is for the checkpoints of semi-supervised models: no name in it begins with `student.`'
        )
    if is_semi_supervised:
        weights = take_part(weights, parts[-1] if part is None else part)
    kept = weights
    if not keep_anchors:
        kept = {name: weight for name, weight in weights.items() if not is_of_anchors(name)}
    if len(kept) == len(weights) and not is_semi_supervised and not half:
        anchors = 'anchors are to be kept' if keep_anchors else 'no name in it contains `anchor_head.`'
        raise ValueError(
            f'there is nothing to drop from the checkpoint: {anchors}, and it is not that of a semi-supervised model'
        )
    print(f'{len(weights) - len(kept)} tensors of semantic anchors dropped, {len(kept)} kept')
    return {name: to_half(name, weight) for name, weight in kept.items()} if half else kept


def is_of_anchors(name: str) -> bool:
    return 'anchor_head' in name.split('.') or is_authors_name(name)


def to_half(name: str, weight: Tensor) -> Tensor:
    rounded = weight.half() if weight.is_floating_point() else weight
    if not torch.equal(rounded.isfinite(), weight.isfinite()):
        raise ValueError(f'--half: {name} has values above 65504, the largest of half precision')
    return rounded


def take_part(weights: Weights, part: str) -> Weights:
    """Return the weights of one part of a semi-supervised model under the names they have in a model of its own."""
    prefix = PREFIXES[part]
    taken = {name[len(prefix) :]: weight for name, weight in weights.items() if name.startswith(prefix)}
    if not taken:
        raise ValueError(
            f'there is no {part} in the checkpoint: no name in it begins with `{prefix}`; use --part student'
        )
    print(f'{len(taken)} tensors of the {part} taken, {len(weights) - len(taken)} others dropped')
    return taken


def main(args: argparse.Namespace) -> None:
    with report_errors():
        convert_checkpoint(args, partial(to_stock, part=args.part, keep_anchors=args.keep_anchors, half=args.half))


if __name__ == '__main__':
    main(ARGS)
