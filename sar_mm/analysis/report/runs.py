"""Work folders of trainings: what was trained, with which seed, and how far it got."""

import logging
import re
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from mmengine.config import Config

from ...checks import UsageError
from ...engine.resuming import newest_checkpoint
from ...engine.safe_checkpoints import CheckpointError
from .logs import Log, read_log
from .titles import settings_of, titles_of


class Run(NamedTuple):
    """A training in a work folder; ``length`` is that of the whole training, in ``unit`` s, if it says so."""

    folder: Path
    name: str
    seed: Optional[int]
    cfg: Config
    config: Path
    log: Log
    checkpoint: Optional[str]
    unit: str
    done: int
    length: Optional[int]

    @property
    def is_whole(self) -> bool:
        return self.length is not None and self.done >= self.length


def read_models(folders: Sequence[Path], names: Optional[Sequence[str]] = None) -> Dict[str, List[Run]]:
    """Read work folders, and put the runs of a config that differ in nothing but their seed together.

    Args:
        folders: Work folders, or folders of such ones.
        names: Titles of the models, in the order of their first folders. None: what tells their configs apart.

    Returns:
        Title -> the runs of the model.

    Raises:
        UsageError: A folder without a training, or not one name for each model.
    """
    runs = [read_run(folder) for given in folders for folder in _work_folders(Path(given))]
    groups: Dict[Any, List[Run]] = {}
    for run in runs:
        groups.setdefault((run.name, settings_of(run.cfg)), []).append(run)
    titles = list(names) if names else titles_of(list(groups))
    if len(titles) != len(groups) or len(set(titles)) != len(titles):
        found = ', '.join(f'{name} ({len(runs)} runs)' for (name, _), runs in groups.items())
        raise UsageError(f'--names is to have a different name for each of the {len(groups)} models, {found}')
    return dict(zip(titles, groups.values()))


def read_run(folder: Path) -> Run:
    """Read a work folder; a UsageError where no training has been started in it."""
    configs = sorted(folder.glob('*.py'), key=lambda path: path.stat().st_mtime)
    logged = sorted(path.parent / 'config.py' for path in folder.glob('*/vis_data/scalars.json'))
    exact = [path for path in logged[-1:] if path.is_file()]
    if not configs and not exact:
        raise UsageError(f'{folder} has no config: it is to be the work folder of a training')
    config = (exact or configs)[-1]
    cfg = Config.fromfile(config)
    log = read_log(folder)
    train_cfg = cfg.get('train_cfg') or {}
    by_epoch = 'max_epochs' in train_cfg
    checkpoint = _checkpoint(folder)
    saved = re.search(r'(iter|epoch)_(\d+)\.pth$', checkpoint or '')
    if by_epoch:
        done = max((int(values.get('epoch', 0)) - 1 for values in log.train.values()), default=0)
        done = max(done, int(saved[2]) if saved and saved[1] == 'epoch' else 0)
    else:
        done = max([*log.train, *log.val, int(saved[2]) if saved and saved[1] == 'iter' else 0])
    return Run(
        folder=folder,
        name=configs[-1].stem if configs else folder.name,
        seed=(cfg.get('randomness') or {}).get('seed'),
        cfg=cfg,
        config=config,
        log=log,
        checkpoint=checkpoint,
        unit='epoch' if by_epoch else 'iteration',
        done=done,
        length=train_cfg.get('max_epochs' if by_epoch else 'max_iters'),
    )


def _checkpoint(folder: Path) -> Optional[str]:
    try:
        return newest_checkpoint(str(folder), [], logging.Logger('report'))
    except CheckpointError:  # all of them are damaged: the logs can still be shown
        return None


def classes_of(models: Dict[str, List[Run]]) -> List[str]:
    """Return the names of the classes, from the logged values of each class or the configs; none where neither has any.

    Raises:
        UsageError: The runs have different classes.
    """
    found: Dict[Any, Path] = {}
    for run in (run for runs in models.values() for run in runs):
        classes = _classes_of(run)
        if classes:
            found.setdefault(tuple(classes), run.folder)
    if len(found) > 1:
        both = ' and '.join(f'{list(classes)} ({folder})' for classes, folder in list(found.items())[:2])
        raise UsageError(f'the runs have different classes, {both}: a report is of models of the same classes')
    return list(next(iter(found), ()))


def check_task(models: Dict[str, List[Run]]) -> None:
    """Raise a UsageError where some runs are of another toolbox than the others, and so of another task."""
    found = {run.cfg.get('default_scope'): run.folder for runs in models.values() for run in runs}
    if len(found) > 1:
        given = ' and '.join(f'{scope} ({folder})' for scope, folder in found.items())
        raise UsageError(f'the runs have different tasks, default_scope is {given}: a report is of one task')


def _classes_of(run: Run) -> List[str]:
    for values in reversed(list(run.log.val.values())):
        names = [name[len('IoU/') :] for name in values if name.startswith('IoU/')]
        if names:
            return names
    for loader in ('val_dataloader', 'test_dataloader', 'train_dataloader'):
        dataset = (run.cfg.get(loader) or {}).get('dataset') or {}
        classes = (dataset.get('metainfo') or {}).get('classes') or dataset.get('classes')
        if isinstance(classes, (list, tuple)):
            return list(map(str, classes))
    return []


def _work_folders(folder: Path) -> List[Path]:
    """Return the folder itself, or those of trainings in it."""
    if not folder.is_dir():
        raise UsageError(f'there is no folder {folder}')
    if _is_work_folder(folder):
        return [folder]
    inner = sorted(each for each in folder.iterdir() if each.is_dir() and _is_work_folder(each))
    if not inner:
        raise UsageError(
            f'{folder} is not the work folder of a training, nor a folder of such ones: there is no config and no '
            'vis_data/scalars.json in it'
        )
    return inner


def _is_work_folder(folder: Path) -> bool:
    return any(folder.glob('*.py')) or any(folder.glob('*/vis_data/scalars.json'))
