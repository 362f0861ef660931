"""Drop the semantic anchors from a checkpoint: what is left loads strictly into the stock model.

    python tools/model_converters/drop_anchors.py work_dirs/sar_fcn/iter_80000.pth fcn.pth

The optimizer's state and the logs are dropped as well; the weights that remain are unchanged.
"""

import argparse

from sar_mm.engine.checkpoints import Weights, add_checkpoint_arguments, convert_checkpoint
from sar_mm.engine.cli import usage_errors


def drop_anchors(weights: Weights) -> Weights:
    """Return the weights without those of anchor heads."""
    kept = {name: weight for name, weight in weights.items() if 'anchor_head' not in name.split('.')}
    if len(kept) == len(weights):
        raise ValueError('there are no semantic anchors in the checkpoint: no name in it contains `anchor_head.`')
    print(f'{len(weights) - len(kept)} tensors of semantic anchors dropped, {len(kept)} kept')
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_checkpoint_arguments(parser)
    args = parser.parse_args()
    with usage_errors():
        convert_checkpoint(args, drop_anchors)


if __name__ == '__main__':
    main()
