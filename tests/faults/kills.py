"""Tiny trainings that are killed at random moments and resumed, and the comparison with one that was left alone."""

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

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
QUICKSTART = ROOT / 'configs' / 'quickstart'
ITERATIONS = 80
VALIDATION = 4  # iterations between two validations
PATIENCE = 300  # seconds without a step, after which something hangs

# Random everything: crops, flips and colours in the data, dropout or mixup in the model, shuffling in the sampler.
SEGMENTATION = f"""
_base_ = {str(QUICKSTART / 'sar_fcn_unet_1xb16-400iter_digit-scenes-64x64.py')!r}
custom_imports = dict(imports=['sar_mm', 'probe'])
anchor_head = dict(gate_threshold=0.15, gate_per_class=True, momentum=0.9)
model = dict(
    backbone=dict(base_channels=4),
    decode_head=dict(
        in_channels=4,
        channels=8,
        dropout_ratio=0.2,
        loss_decode=dict(class_weight=[1.0] * 10 + [0.1]),
        anchor_head=anchor_head,
    ),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(48, 48), cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline, indices=30))
val_dataloader = dict(batch_size=1, dataset=dict(indices=8))
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_iters={ITERATIONS}, val_interval={VALIDATION})
param_scheduler = dict(end={ITERATIONS})
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=3, save_best='mIoU')
)
custom_hooks = [dict(type='EMAHook', momentum=0.1), dict(type='Probe', ballast=6, pause=0.02)]
"""

# By epochs: four iterations in each, one checkpoint and one validation after it.
CLASSIFICATION = f"""
_base_ = {str(QUICKSTART / 'sar_resnet18_1xb64-300iter_digits-lt.py')!r}
custom_imports = dict(imports=['sar_mm', 'probe'])
anchor_head = dict(gate_threshold=0.15, gate_per_class=True, momentum=0.9)
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    head=dict(
        type='SARStackedLinearClsHead', in_channels=32, mid_channels=[16], dropout_rate=0.2, anchor_head=anchor_head
    ),
    train_cfg=dict(augments=dict(type='Mixup', alpha=0.2)),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=20),
    dict(type='RandomCrop', crop_size=16),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=8,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(data_prefix='train_balanced', pipeline=train_pipeline, indices=list(range(0, 1184, 37))),
)
val_dataloader = dict(batch_size=4, dataset=dict(indices=list(range(0, 540, 18))))
optim_wrapper = dict(optimizer=dict(momentum=0.9))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=10),
    dict(type='MultiStepLR', by_epoch=True, milestones=[6, 14], gamma=0.3),
]
train_cfg = dict(_delete_=True, by_epoch=True, max_epochs={ITERATIONS // VALIDATION}, val_interval=1)
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(by_epoch=True, interval=1, max_keep_ckpts=3, save_best='accuracy/top1'),
)
log_processor = dict(by_epoch=True)
custom_hooks = [dict(type='Probe', ballast=6, pause=0.02)]
"""

# Of a teacher, alignment and adaptive thresholds, with an unlabeled stream of its own.
SEMI = f"""
_base_ = {str(QUICKSTART / 'sar_resnet18-fixmatch_1xb20-600iter_digits-40labels.py')!r}
custom_imports = dict(imports=['sar_mm', 'probe'])
anchor_head = dict(gate_threshold=0.15, gate_per_class=True, momentum=0.9)
model = dict(
    classifier=dict(
        backbone=dict(stem_channels=8, base_channels=8),
        head=dict(in_channels=32, anchor_head=anchor_head),
    ),
    semi=dict(threshold=0.15, warmup_iters=3),
)
train_dataloader = dict(batch_size=12, sampler=dict(labeled=4, unlabeled=8))
val_dataloader = dict(batch_size=4, dataset=dict(indices=list(range(0, 540, 18))))
optim_wrapper = dict(optimizer=dict(lr=0.01))
train_cfg = dict(max_iters={ITERATIONS}, val_interval={VALIDATION})
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=2, max_keep_ckpts=3, save_best='auto')
)
custom_hooks = [dict(type='Probe', ballast=6, pause=0.02)]
"""
TASKS = dict(segmentation=SEGMENTATION, classification=CLASSIFICATION, semi=SEMI)


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


# Not the same from run to run: times, memory, and names made from the time of the start.
PASSING = {'time', 'data_time', 'memory', 'eta', 'experiment_name', 'cfg', 'mmengine_version'}


def differences(one, other, place: str = '') -> List[str]:
    """Return the places at which two checkpoints differ in as much as a bit, times and paths aside."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = {name for name in {*one, *other} if str(name).split('/')[-1] not in PASSING}
        alone = [f'{place}/{name}' for name in sorted(names - (names & one.keys() & other.keys()), key=str)]
        shared = sorted(names & one.keys() & other.keys(), key=str)
        return alone + [found for name in shared for found in differences(one[name], other[name], f'{place}/{name}')]
    if type(one) is not type(other):
        return [place]
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [place]
        return [found for k, pair in enumerate(zip(one, other)) for found in differences(*pair, f'{place}/{k}')]
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        return [] if same and one.numpy().tobytes() == other.numpy().tobytes() else [place]
    if hasattr(one, '_log_history'):  # of a number in mmengine's log
        return differences(vars(one), vars(other), place)
    if hasattr(one, 'tobytes'):
        return [] if one.dtype == other.dtype and one.tobytes() == other.tobytes() else [place]
    if isinstance(one, str) and ('/' in one):
        one, other = Path(one).name, Path(other).name
    return [] if one == other or (one != one and other != other) else [place]


def steps(records: List[dict]) -> Dict[Tuple[str, int], dict]:
    """What happened in every step; where a step was made twice, both have to agree."""
    found = {}
    for record in records:
        record = {name: value for name, value in record.items() if name != 'pid'}
        if record['event'] not in ('training', 'trained', 'validated'):
            continue
        key = (record['event'], record['iter'])
        assert found.setdefault(key, record) == record, f'{key} went otherwise the second time'
    return found
