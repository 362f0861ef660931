"""What the benchmarks share: steps timed side by side, the peak memory and the profile of a step, and the report."""

import argparse
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from math import prod
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import sar_mm

Step = Callable[[], None]
IGNORED = 255

# What makes the host wait for a GPU: on a GPU, these calls of the driver. A CPU never waits; counted there are the ops
# that would, as they read a value or need one for the size of their result.
_WAITING_CALLS = {'cudaStreamSynchronize', 'cudaDeviceSynchronize', 'cudaEventSynchronize', 'cudaMemcpy'}
_WAITING_OPS = {
    f'aten::{name}'
    for name in ('_local_scalar_dense', 'nonzero', 'masked_select', 'bincount', 'equal', '_unique2', 'unique_dim')
}

# GPU cycles, some milliseconds, that the host is ahead: as in training, it launches kernels while earlier ones run.
_HEAD_START = 5_000_000


# ----- What is measured


def label_map(shape: Sequence[int], num_classes: int, seed: int = 0) -> Tensor:
    """Return random labels (N, H, W) in blocks of 8x8 pixels, as things in a picture have areas; 10 % are ignored."""
    generator = torch.Generator().manual_seed(seed)
    count, height, width = shape
    blocks = torch.randint(num_classes, (count, -(-height // 8), -(-width // 8)), generator=generator)
    blocks[torch.rand(blocks.shape, generator=generator) < 0.1] = IGNORED
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :height, :width].contiguous()


def all_times(
    steps: Dict[str, Step], device: torch.device, rounds: int, warm_up: int = 2, before: Optional[Step] = None
) -> Dict[str, List[float]]:
    """Return the milliseconds that every step took in each round; ``before`` is called before each, and not timed.

    In each round every step runs once, in an order that rotates: whatever else the machine does meets them all alike.
    """
    names = list(steps)
    times: Dict[str, List[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            if before is not None:
                before()
            elapsed = _milliseconds(steps[name], device)
            if number >= 0:
                times[name].append(elapsed)
    return times


def median_times(steps: Dict[str, Step], device: torch.device, rounds: int, warm_up: int = 2) -> Dict[str, float]:
    """Return the medians of :func:`all_times`."""
    times = all_times(steps, device, rounds, warm_up)
    return {name: statistics.median(elapsed) for name, elapsed in times.items()}


def _milliseconds(step: Step, device: torch.device) -> float:
    if device.type != 'cuda':
        start = time.perf_counter()
        step()
        return 1000 * (time.perf_counter() - start)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    torch.cuda._sleep(_HEAD_START)
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end)


def trace(step: Step, device: torch.device) -> List[dict]:
    """Run a step under the profiler and return the events of its Chrome trace, sorted by time."""
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # it reports on itself
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == 'cuda')
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with profile(activities=activities, profile_memory=True, record_shapes=True) as profiler:
            step()
        file = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding='utf-8', errors='replace'))['traceEvents']
    return sorted((event for event in events if 'ts' in event), key=lambda event: event['ts'])


def peak_memory(step: Step, device: torch.device) -> int:
    """Return the bytes of tensors that a step holds at its peak, beyond those there were before it.

    On a CPU, memory from before the step is not seen to be freed: a gradient that the step replaces has to be None.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    sizes: Dict[int, int] = {}
    now = peak = 0
    for event in trace(step, device):
        if event['name'] == '[memory]':
            address, size = event['args']['Addr'], event['args']['Bytes']
            now -= sizes.pop(address, 0)
            if size > 0:
                sizes[address] = size
                now += size
            peak = max(peak, now)
    return peak


def host_waits(events: List[dict], device: torch.device) -> Dict[str, int]:
    """Return how often each call or op that makes the host wait for a GPU occurs in a trace."""
    if device.type == 'cuda':
        return dict(Counter(event['name'] for event in events if event['name'] in _WAITING_CALLS))
    # The optimizers of PyTorch read their counts of steps, which are on the CPU even where the weights are on a GPU.
    optimizers = [event for event in events if event['name'].startswith('Optimizer.step#') and 'dur' in event]
    spans = [(event['ts'], event['ts'] + event['dur']) for event in optimizers]
    ops = [event for event in events if event['name'] in _WAITING_OPS]
    return dict(Counter(op['name'] for op in ops if not any(start <= op['ts'] <= end for start, end in spans)))


def collectives(events: List[dict]) -> Tuple[Dict[str, int], int]:
    """Return how often each collective occurs in a trace, and how many numbers this process gives to them all."""
    ops = [event for event in events if event['name'].startswith('c10d::')]
    numbers = sum(_count_numbers(event['args'].get('Input Dims', [])) for event in ops)
    return dict(Counter(event['name'] for event in ops)), numbers


def _count_numbers(dims: list) -> int:
    """Count the elements of the first input, a tensor or a list of tensors."""
    first = dims[0] if dims else []
    return sum(map(prod, first)) if first and isinstance(first[0], list) else prod(first) if first else 0


# ----- What is reported


def use_device(parser: argparse.ArgumentParser, args: argparse.Namespace) -> torch.device:
    """Check the common arguments, set the threads, and return the device."""
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('argument --device: PyTorch finds no GPU here, so cuda is not valid; use cpu')
    if args.out and not args.out.parent.is_dir():
        parser.error(f'argument --out: there is no folder {args.out.parent}')
    if (args.page is None) != (args.mark is None):
        parser.error('argument --page: --page FILE and --mark NAME belong together')
    if args.page and not args.page.is_file():
        parser.error(f'argument --page: there is no file {args.page}')
    if args.threads:
        torch.set_num_threads(args.threads)
    return torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))


def made_with(device: torch.device) -> Dict[str, Union[str, int]]:
    """Return the names of the device and of the versions, for the head of a report."""
    versions = dict(torch=torch.__version__, sar_mm=sar_mm.__version__)
    if device.type == 'cuda':
        try:
            import triton

            versions.update(triton=triton.__version__)
        except ImportError:
            pass
        return dict(device=torch.cuda.get_device_name(device), **versions)
    return dict(device=_cpu_name(), threads=torch.get_num_threads(), **versions)


def _cpu_name() -> str:
    info = Path('/proc/cpuinfo')
    found = re.search(r'^model name\s*:\s*(.+)$', info.read_text(), re.M) if info.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first column is text and whose others are numbers."""
    lines = [columns, ['---'] + ['---:'] * (len(columns) - 1), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def report(args: argparse.Namespace, head: Dict[str, Union[str, int]], rows: List[dict], markdown: str) -> None:
    """Show the table, and write the rows as JSON if ``args`` asks for it."""
    show(args, head, markdown)
    if args.out:
        args.out.write_text(json.dumps(dict(head, rounds=args.rounds, rows=rows), indent=2) + '\n', encoding='utf-8')


def show(args: argparse.Namespace, head: Dict[str, Union[str, int]], markdown: str) -> None:
    """Print the table below a line with the device and the versions, into the page as well if ``args`` names one."""
    rest = ', '.join(f'{name} {value}' for name, value in head.items() if name != 'device')
    markdown = f'{head["device"]}; {rest}; medians of {args.rounds} rounds.\n\n{markdown}'
    print(markdown)
    if args.page:
        write_page(args.page, args.mark, markdown)


def write_page(page: Path, mark: str, text: str) -> None:
    """Replace what stands between the marks of a page."""
    old = page.read_text(encoding='utf-8')
    new, found = re.subn(
        rf'(<!-- {re.escape(mark)} -->\n).*?(<!-- end -->)', lambda m: f'{m[1]}{text}\n{m[2]}', old, flags=re.S
    )
    if not found:
        sys.exit(f'error: {page} has no lines `<!-- {mark} -->` and `<!-- end -->`')
    page.write_text(new, encoding='utf-8')
