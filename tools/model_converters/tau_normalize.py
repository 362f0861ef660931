"""Rescale the classifier of a checkpoint so that common classes lose their advantage: tau-normalisation.

    python tools/model_converters/tau_normalize.py work_dirs/ce/epoch_200.pth ce_tau.pth --tau 1.0
    python tools/test.py CONFIG ce_tau.pth

Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, section 4.3: the weight
vector of class k becomes ``w_k / ||w_k||^tau``. Classifiers of imbalanced data have longer vectors for common classes;
with tau = 1 all are of length 1. As published, the rescaled classifier has no bias: for tau > 0 it is set to zero.
tau = 0 changes nothing. Choose tau on validation data. The optimizer's state and the logs are dropped.
"""

import argparse
from functools import partial

from checkpoint_arguments import add_checkpoint_arguments


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkpoint_arguments(parser)
    parser.add_argument('--tau', type=float, default=1.0, help='0: nothing changes, 1: all classes get the same norm')
    parser.add_argument('--layer', default='head.fc', help='the classifier: decode_head.conv_seg in segmentation')
    return parser.parse_args()


if __name__ == '__main__':  # before the imports below, which take seconds
    ARGS = parse_args()

from torch import Tensor

from sar_mm.checks import check, check_probability
from sar_mm.cli.conversion import Weights, convert_checkpoint
from sar_mm.cli.errors import report_errors


def tau_normalize(weights: Weights, layer: str, tau: float) -> Weights:
    """Return the weights with those of ``layer`` rescaled; a linear layer or a 1x1 convolution."""
    check_probability('tau', tau, ends=True)
    candidates = [name[: -len('.weight')] for name, weight in weights.items() if could_classify(name, weight)]
    check(layer in candidates, 'layer', layer, f'a layer that may be a classifier, one of {candidates}')
    weight = weights[f'{layer}.weight']
    norms = weight.flatten(1).double().norm(dim=1)
    # A row of zeros has no direction, and stays.
    factors = norms.clamp(min=1e-12).pow(-tau)
    scaled = (weight.flatten(1).double() * factors[:, None]).to(weight.dtype).reshape(weight.shape)
    changed = {f'{layer}.weight': scaled}
    bias = weights.get(f'{layer}.bias')
    if bias is not None and tau > 0:
        changed[f'{layer}.bias'] = bias.new_zeros(bias.shape)
    after = scaled.flatten(1).norm(dim=1)
    print(
        f'{layer}: norms of {len(norms)} classes from {norms.min():.3f}-{norms.max():.3f} to '
        f'{after.min():.3f}-{after.max():.3f}' + (', bias set to zero' if f'{layer}.bias' in changed else '')
    )
    return {**weights, **changed}


def could_classify(name: str, weight: Tensor) -> bool:
    """Whether a tensor is the weight of a linear layer or 1x1 convolution that may be a classifier."""
    parts = name.split('.')
    is_linear = weight.dim() == 2 or (weight.dim() == 4 and tuple(weight.shape[2:]) == (1, 1))
    return is_linear and parts[-1] == 'weight' and not {'backbone', 'neck', 'anchor_head'} & set(parts)


def main(args: argparse.Namespace) -> None:
    with report_errors():
        convert_checkpoint(args, partial(tau_normalize, layer=args.layer, tau=args.tau))


if __name__ == '__main__':
    main(ARGS)
