"""Run tools from other tools."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Sequence

_PROGRESS = re.compile(r'(?:Iter|Epoch)\(train\)\s*\[\s*(.*?)\].*?\bloss: ([\d.]+|nan)')


def run_tool(command: List[str], log: Path, label: str, pass_fds: Sequence[int] = ()) -> float:
    """Run a tool with its output in ``log`` and its progress on the screen; return the seconds it took.

    A tool that fails ends this process with its exit code, and the end of the log on the screen.

    Args:
        command: Path of the tool, and its arguments.
        log: File for the output.
        label: What the screen shows before the progress.
        pass_fds: Open files that the tool inherits: a ``flock`` on one of them is held until both processes have
            ended, also where this one is killed first.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    # More threads slow down small models, as do threads that spin while they wait on a busy machine.
    threads = dict(OMP_NUM_THREADS='2', OMP_WAIT_POLICY='passive')
    environment = {**threads, **os.environ, 'PYTHONUNBUFFERED': '1'}
    is_terminal = sys.stdout.isatty()
    print(f'{label} ...', end='' if is_terminal else '\n', flush=True)
    with log.open('w') as out, subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        pass_fds=pass_fds,
    ) as process:
        for line in process.stdout:
            out.write(line)
            progress = _PROGRESS.search(line)
            if progress and is_terminal:
                print(f'\r{label} ... {progress[1]}, loss {progress[2]} ', end='', flush=True)
    seconds = time.perf_counter() - start
    if process.returncode:
        print(f'\n{" ".join(command)} failed; the end of {log}:\n')
        print('\n'.join(log.read_text().splitlines()[-15:]))
        sys.exit(process.returncode)
    clear = '\r\033[K' if is_terminal else ''
    print(f'{clear}{label} ... {seconds:.0f} s', flush=True)
    return seconds
