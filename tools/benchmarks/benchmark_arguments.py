"""The arguments that the benchmarks of time and memory share; it imports nothing that takes time."""

import argparse
from pathlib import Path


def positive(text: str) -> int:
    """Parse an argument that has to be an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected an integer of at least 1, but got {text!r}')
    return int(text)


def add_common_arguments(parser: argparse.ArgumentParser, rounds: int, out: str = 'JSON file') -> None:
    """Add the arguments of every benchmark of time and memory."""
    parser.add_argument('--rounds', type=positive, default=rounds, help=f'times each is run; default {rounds}')
    parser.add_argument('--device', choices=['cpu', 'cuda'], help='default: a GPU where there is one')
    parser.add_argument('--threads', type=positive, help="threads of a CPU; default PyTorch's own choice")
    parser.add_argument('--out', type=Path, help=f'{out} to write the results into')
    parser.add_argument('--page', type=Path, help='Markdown file to write the table into')
    parser.add_argument('--mark', help='name of the place in the page, `<!-- MARK -->` to `<!-- end -->`')
