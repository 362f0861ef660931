"""The stock models that the benchmarks train, and the arguments that choose them; imports nothing that takes time."""

import argparse
from importlib.util import find_spec
from typing import Dict, NamedTuple, Sequence, Tuple

from benchmark_arguments import positive


class Stock(NamedTuple):
    """A stock model: its config, the size it trains at, images of a step on a CPU, and how few a step can have."""

    config: str  # of a toolbox, or within this repository
    size: Tuple[int, int]
    cpu_batch: int
    smallest_batch: int = 1  # 2 where a batch normalization follows a pooling to one pixel
    toolbox: str = ''  # where the config does not say it


STOCK: Dict[str, Stock] = {
    'quickstart-unet': Stock(
        'configs/quickstart/fcn_unet_1xb16-400iter_digit-scenes-64x64.py', (64, 64), 16, toolbox='mmseg'
    ),
    'resnet8': Stock(
        'configs/long_tailed/fashion_mnist/resnet8-ce_1xb128-400iter_fashion-mnist-lt-if100.py',
        (32, 32),
        128,
        toolbox='mmpretrain',
    ),
    'fcn-hrnet-w48': Stock('mmseg::hrnet/fcn_hr48_4xb2-80k_cityscapes-512x1024.py', (512, 1024), 1),
    'deeplabv3plus-r50': Stock(
        'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb2-80k_cityscapes-512x1024.py', (512, 1024), 2, 2
    ),
    'segformer-b0': Stock('mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', (512, 512), 2),
    'upernet-swin-t': Stock(
        'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py', (512, 512), 2, 2
    ),
    'resnet50': Stock('mmpretrain::resnet/resnet50_8xb32_in1k.py', (224, 224), 32),
    'vit-b16': Stock('mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py', (224, 224), 16),
}
# Those of full size: four of segmentation, two of classification.
LARGE = [name for name in STOCK if '::' in STOCK[name].config]


def multiple_of_32(text: str) -> int:
    """Parse a side of an image: every model can halve it five times."""
    if not text.isdecimal() or int(text) < 32 or int(text) % 32:
        raise argparse.ArgumentTypeError(f'expected a multiple of 32, but got {text!r}')
    return int(text)


def add_model_arguments(parser: argparse.ArgumentParser, models: Sequence[str]) -> None:
    """Add what is trained, by default these models, and on which batches."""
    parser.add_argument(
        '--models', nargs='+', choices=list(STOCK), default=list(models), help=f'default {" ".join(models)}'
    )
    parser.add_argument('--batch-size', type=positive, help="per process; default the config's on a GPU, else small")
    parser.add_argument('--size', type=multiple_of_32, nargs=2, metavar=('H', 'W'), help="default the config's")


def check_model_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program where a toolbox is missing, or the batch is too small for a model."""
    for name in args.models:
        toolbox = STOCK[name].toolbox or STOCK[name].config.split('::')[0]
        if find_spec(toolbox) is None:
            parser.error(f'argument --models: {name} needs {toolbox}, which is not installed')
        if args.batch_size and args.batch_size < STOCK[name].smallest_batch:
            parser.error(
                f'argument --batch-size: {args.batch_size} is too small for {name}, which normalizes pooled features '
                f'over the batch; use at least {STOCK[name].smallest_batch}'
            )
