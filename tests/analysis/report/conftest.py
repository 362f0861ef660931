import json

import pytest

CONFIG = """
default_scope = 'mmpretrain'
model = dict(head=dict(num_classes=2))
train_cfg = dict({unit}={length})
randomness = dict(seed={seed})
val_dataloader = dict(dataset=dict(metainfo=dict(classes={classes!r})))
{more}
"""


@pytest.fixture
def work_folder(tmp_path):
    """Make the work folder of a training, with one config and what each of its starts logged."""

    def make(path, *starts, seed=0, unit='max_iters', length=20, classes=('cat', 'dog'), more='', name='net'):
        folder = tmp_path / path
        folder.mkdir(parents=True)
        config = CONFIG.format(unit=unit, length=length, seed=seed, classes=list(classes), more=more)
        (folder / f'{name}.py').write_text(config)
        for number, lines in enumerate(starts):
            visual = folder / f'2026010{number + 1}_120000' / 'vis_data'
            visual.mkdir(parents=True)
            (visual / 'config.py').write_text(config)
            texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
            (visual / 'scalars.json').write_text('\n'.join(texts))
        return folder

    return make


@pytest.fixture
def step():
    return lambda at, loss=1.0, **more: dict(lr=0.1, loss=loss, iter=at, step=at, **more)


@pytest.fixture
def validation():
    return lambda at, accuracy=50.0, **more: {'accuracy/top1': accuracy, 'time': 0.1, 'step': at, **more}
