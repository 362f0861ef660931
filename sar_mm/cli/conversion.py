"""What the tools in tools/model_converters/ share: reading the weights of a checkpoint, and writing changed ones."""

import argparse
from typing import Any, Callable, Dict

import torch
from torch import Tensor

from ..checks import UsageError
from ..engine.safe_checkpoints import CheckpointError, read_checkpoint

Weights = Dict[str, Tensor]


def convert_checkpoint(args: argparse.Namespace, change: Callable[[Weights], Weights]) -> None:
    """Read the weights of ``args.checkpoint``, change them, and write them to ``args.out``.

    Of everything else, the plain values in ``meta`` are kept. Without ``args.trust``, nothing in the file is run.

    Raises:
        CheckpointError: The file cannot be read.
        UsageError: It is no checkpoint, ``change`` refuses it with a ValueError, or ``args.out`` is the same file.
    """
    if not args.checkpoint.is_file():
        raise UsageError(f'there is no checkpoint {args.checkpoint}')
    if args.out.resolve() == args.checkpoint.resolve():
        raise UsageError(f'OUT is CHECKPOINT itself, {args.out}: name another file')
    if args.trust:
        checkpoint = torch.load(args.checkpoint, map_location='cpu', weights_only=False)
    else:
        try:
            checkpoint = read_checkpoint(str(args.checkpoint), skip_unknown=True)
        except CheckpointError as error:
            raise CheckpointError(f'{error}; if you trust where the file comes from, add --trust') from error
    weights = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(w, Tensor) for w in weights.values()):
        raise UsageError(f'{args.checkpoint} holds no weights: neither a state_dict nor tensors by name')
    try:
        weights = change(weights)
    except ValueError as error:
        raise UsageError(str(error)) from error
    meta = checkpoint.get('meta', {}) if 'state_dict' in checkpoint else {}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        dict(meta={name: value for name, value in meta.items() if _is_plain(value)}, state_dict=weights), args.out
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return type(value) is dict and all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, complex, str, Tensor)
