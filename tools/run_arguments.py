"""The arguments that tools/train.py and tools/test.py share; it imports nothing that takes time."""

import argparse


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a tool that runs a config, which are those of the OpenMMLab toolboxes."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; default work_dirs/<config name>')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings of the config, as in model.decode_head.anchor_head.momentum=0.99; lists as key="[a,b]"',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # Launchers of different age spell it differently.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
