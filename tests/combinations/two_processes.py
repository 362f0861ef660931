"""One of two processes that check rows of the matrix together: ``python two_processes.py RANK FOLDER ROW...``.

``FOLDER/ROW.RANK.json`` has what came out: the error, or None, and the fingerprint of the weights. After an error the
process ends, as the other one may be waiting for it somewhere else.
"""

import hashlib
import json
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import torch
from parts import ROWS
from runs import check_row
from tiny import hurrying


def main(rank: int, folder: Path, numbers: list) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous-{numbers[0]}',
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    for number in numbers:
        found = dict(error=None, weights=None)
        try:
            with hurrying():
                found['weights'] = fingerprint(check_row(ROWS[number], folder / f'row-{number}'))
            torch.distributed.barrier()
        except BaseException:
            found['error'] = traceback.format_exc()
        (folder / f'{number}.{rank}.json').write_text(json.dumps(found))
        if found['error'] is not None:
            break
    sys.stdout.flush()
    os._exit(0)  # the threads of gloo may abort a process that ends otherwise


def fingerprint(weights: list) -> dict:
    return {name: hashlib.sha1(value.cpu().numpy().tobytes()).hexdigest() for name, value in weights}


if __name__ == '__main__':
    main(int(sys.argv[1]), Path(sys.argv[2]), [int(number) for number in sys.argv[3:]])
