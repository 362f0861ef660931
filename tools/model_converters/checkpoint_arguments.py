"""The arguments that the converters of checkpoints share; it imports nothing that takes time."""

import argparse
from pathlib import Path


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every converter."""
    parser.add_argument('checkpoint', metavar='CHECKPOINT', type=Path, help='a .pth file of mmengine, or a state dict')
    parser.add_argument('out', metavar='OUT', type=Path, help='where to write the new one')
    parser.add_argument(
        '--trust',
        action='store_true',
        help='unpickle CHECKPOINT, which can run code in it; needed for training checkpoints with PyTorch below 2.6',
    )
