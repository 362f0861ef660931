"""Tiny trainings that are killed at random moments and resumed."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import torch
from kill_tasks import ITERATIONS, ROOT, TASKS, VALIDATION

HERE = Path(__file__).parent
PATIENCE = 300  # seconds without a step, after which something hangs


class Kill(NamedTuple):
    """When to kill: a delay after the first event of a kind in or after an iteration."""

    event: str  # 'training', 'validating' or 'saving'
    iteration: int
    delay: float  # seconds


# About as long as each takes: a longer delay ends in what comes next.
DELAYS = dict(training=0.04, validating=0.15, saving=0.05)


def plan(count: int, seed: int) -> List[Kill]:
    """Draw kills spread over a training, as many of each kind."""
    draw = random.Random(seed)
    events = [list(DELAYS)[k % len(DELAYS)] for k in range(count)]
    draw.shuffle(events)
    last = ITERATIONS - 2 * VALIDATION
    iterations = [int(last * (k + draw.random()) / count) for k in range(count)]
    return [Kill(event, at, draw.random() * DELAYS[event]) for event, at in zip(events, iterations)]


class Training:
    """A training in a folder of its own, started anew as often as needed.

    Args:
        folder: Where it runs; ``data`` lies there.
        task: One of ``TASKS``.
        processes: 1, or 2 under torchrun.
        workers: Of the data loader of each process.
        restarts: How often torchrun starts the processes again.
    """

    def __init__(self, folder: Path, task: str, processes: int, workers: int, restarts: int = 0) -> None:
        self.folder, self.processes, self.restarts = folder, processes, restarts
        self.work_dir = folder / 'work'
        loader = f'train_dataloader.update(num_workers={workers}, persistent_workers={workers > 0})\n'
        batch = f"train_dataloader['batch_size'] //= {processes}\n"
        if task == 'semi':
            batch += f"for name in ('labeled', 'unlabeled'):\n    train_dataloader['sampler'][name] //= {processes}\n"
        (folder / 'config.py').write_text(TASKS[task] + loader + batch)
        self.process: Optional[subprocess.Popen] = None

    def start(self) -> None:
        """Start or resume it, with its output at the end of ``log.txt``."""
        paths = [str(Path(sys.executable).parent), os.environ['PATH']]
        modules = [str(HERE), str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
        environment = dict(os.environ, PATH=os.pathsep.join(paths), PYTHONPATH=os.pathsep.join(modules))
        environment.update(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', MAX_RESTARTS=str(self.restarts))
        if self.processes == 1:
            command = ['python', str(ROOT / 'tools' / 'train.py'), 'config.py']
        else:
            command = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), 'config.py', str(self.processes)]
            environment['PORT'] = str(_free_port())
        with (self.folder / 'log.txt').open('a') as log:
            self.process = subprocess.Popen(
                [*command, '--work-dir', 'work', '--resume'],
                cwd=self.folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def join(self) -> None:
        """Wait for its end."""
        code = self.process.wait(2 * PATIENCE)
        assert code == 0, f'ended with exit code {code}:\n{self.tail()}'

    def tail(self) -> str:
        return (self.folder / 'log.txt').read_text()[-3000:]

    def records(self, rank: int = 0) -> List[dict]:
        """What the probe in a process has written so far; a line may be under way."""
        path = self.work_dir / f'probe.{rank}.jsonl'
        lines = path.read_text().split('\n')[:-1] if path.exists() else []
        return [json.loads(line) for line in lines]

    def follow(self, rank: int = 0) -> Iterator[dict]:
        """Yield what the probe writes from now on, while the training runs."""
        seen, until = len(self.records(rank)), time.monotonic() + PATIENCE
        path = self.work_dir / f'probe.{rank}.jsonl'
        while not path.exists():
            self._expect_running()
            time.sleep(0.01)
        with path.open() as file:
            for _ in range(seen):
                file.readline()
            while True:
                line = file.readline()
                if line.endswith('\n'):
                    until = time.monotonic() + PATIENCE
                    yield json.loads(line)
                else:
                    file.seek(file.tell() - len(line))
                    self._expect_running()
                    assert time.monotonic() < until, f'nothing happens:\n{self.tail()}'
                    time.sleep(0.001)

    def _expect_running(self) -> None:
        code = self.process.poll()
        assert code is None, f'ended with exit code {code} before it could be killed:\n{self.tail()}'

    def wait_for(self, kill: Kill, rank: int = 0) -> int:
        """Wait until it is time for a kill; return the process id of the rank."""
        for record in self.follow(rank):
            if record['event'] == kill.event and record['iter'] >= kill.iteration:
                time.sleep(kill.delay)
                return record['pid']
        raise AssertionError('unreachable')

    def wait_for_start(self, number: int) -> None:
        """Wait until torchrun has started all processes this often."""
        until = time.monotonic() + PATIENCE
        while any(self.starts(rank) < number for rank in range(self.processes)):
            self._expect_running()
            assert time.monotonic() < until, f'nothing happens:\n{self.tail()}'
            time.sleep(0.05)

    def starts(self, rank: int) -> int:
        return sum(record['event'] == 'started' for record in self.records(rank))

    def kill(self) -> None:
        """Kill every process of it at once, as a node that loses power does: torchrun, the ranks, their workers."""
        family = _family(self.process.pid)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        while any(map(_is_running, family)):
            time.sleep(0.01)

    def doing(self, rank: int = 0) -> Tuple[str, int]:
        """What a process was doing when it was killed, and the iteration."""
        last = self.records(rank)[-1]
        return (last['event'] if last['event'] in DELAYS else 'between two steps'), last['iter']

    def half_written(self) -> Set[Tuple[str, int]]:
        """Names and times of files that are there because a process was killed while it wrote them."""
        return {(path.name, path.stat().st_mtime_ns) for path in self.work_dir.glob('.*.pth*')}

    def checkpoint(self) -> Dict:
        """The last checkpoint."""
        path = (self.work_dir / 'last_checkpoint').read_text().strip()
        return torch.load(self.folder / path, map_location='cpu', weights_only=False)

    def best_checkpoint(self) -> Tuple[str, Dict]:
        (path,) = self.work_dir.glob('**/best_*.pth')
        return path.name, torch.load(path, map_location='cpu', weights_only=False)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


def _family(pid: int) -> List[int]:
    """Return a process and all that it has started, the oldest first."""
    found = [pid]
    for parent in found:
        for file in Path(f'/proc/{parent}/task').glob('*/children'):
            with suppress(OSError):  # one that has just ended
                found += map(int, file.read_text().split())
    return found


def _is_running(pid: int) -> bool:
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != 'Z'
