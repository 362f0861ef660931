"""Checkpoints turned into checkpoints: what the tools in tools/model_converters/ share."""

import argparse
from pathlib import Path
from typing import Callable, Dict

import torch
from torch import Tensor

from .cli import UsageError

Weights = Dict[str, Tensor]


class _Inert:
    """Takes the place of whatever is pickled in a checkpoint that is no tensor, such as mmengine's logs."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __setstate__(self, state) -> None:
        pass


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every converter."""
    parser.add_argument('checkpoint', metavar='CHECKPOINT', type=Path, help='a .pth file of mmengine, or a state dict')
    parser.add_argument('out', metavar='OUT', type=Path, help='where to write the new one')
    parser.add_argument(
        '--trust',
        action='store_true',
        help='unpickle CHECKPOINT, which can run code in it; needed for training checkpoints with PyTorch below 2.6',
    )


def convert_checkpoint(args: argparse.Namespace, change: Callable[[Weights], Weights]) -> None:
    """Read the weights of ``args.checkpoint``, change them, and write them to ``args.out``.

    What belongs to the training run (optimizer, schedules, logs, the other half of averaged weights) is left out.

    Raises:
        UsageError: The file cannot be read or is no checkpoint, ``change`` refuses it with a ValueError, or
            ``args.out`` is the same file.
    """
    if not args.checkpoint.is_file():
        raise UsageError(f'there is no checkpoint {args.checkpoint}')
    if args.out.resolve() == args.checkpoint.resolve():
        raise UsageError(f'OUT is CHECKPOINT itself, {args.out}: name another file')
    checkpoint = _read(args.checkpoint, args.trust)
    weights = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(w, Tensor) for w in weights.values()):
        raise UsageError(f'{args.checkpoint} holds no weights: neither a state_dict nor tensors by name')
    try:
        weights = change(weights)
    except ValueError as error:
        raise UsageError(str(error)) from error
    meta = checkpoint.get('meta', {}) if 'state_dict' in checkpoint else {}
    meta = {name: value for name, value in meta.items() if not _holds_inert(value)}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(meta=meta, state_dict=weights), args.out)


def _read(path: Path, trust: bool):
    """Load a checkpoint without running anything in it, unless it is trusted."""
    try:
        if trust:
            return torch.load(path, map_location='cpu', weights_only=False)
        if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # PyTorch below 2.6
            return torch.load(path, map_location='cpu', weights_only=True)
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Inert, name) for name in names]):
            return torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # unpickling a damaged file can raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = '' if trust else '; if it is one and you trust where it comes from, add --trust'
        raise UsageError(f'{path} cannot be read as a checkpoint: {reason}{hint}') from error


def _holds_inert(value) -> bool:
    if isinstance(value, dict):
        return any(_holds_inert(each) for each in [*value.keys(), *value.values()])
    return any(map(_holds_inert, value)) if isinstance(value, (list, tuple, set)) else isinstance(value, _Inert)
