"""Lets the tests here and below import the helpers next to this file, and starts processes."""

import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
sys.path.append(str(HERE))
from small_models import NOT_PULLED, TOOLBOX, head_of, make_model  # noqa: E402


@pytest.fixture
def run_processes(tmp_path, run_python):
    """Do the same work in several processes, and return what each of them found."""

    def run(world, function, **job):
        folder = tmp_path / f'{function.__name__}_{len(list(tmp_path.iterdir()))}'
        folder.mkdir()
        torch.save(dict(job, work=function.__name__, folder=str(folder)), folder / 'job.pt')
        script = 'import processes; processes.work({!r}, {}, {})'
        run_python(*(script.format(str(folder), rank, world) for rank in range(world)), paths=[HERE])
        return [torch.load(folder / f'{rank}.pt', weights_only=False) for rank in range(world)]

    return run


@pytest.fixture
def opened(open_gate):
    """Options of a model that pulls from the first step on."""

    def options(kind, anchor_head=None, **head):
        options = dict(kind=kind, anchor_head={'ignore_index': NOT_PULLED[kind], **(anchor_head or {})}, **head)
        pytest.importorskip(f'{TOOLBOX[kind]}.models')
        model = make_model(**options)
        open_gate(head_of(model))
        return dict(options, state=model.state_dict())

    return options
