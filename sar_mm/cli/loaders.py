"""Defaults of data loaders, and trainings without validation."""

from mmengine.config import Config
from mmengine.device import get_device


def set_loader_defaults(cfg: Config) -> None:
    """Set what mmpretrain's own tools set where a config of mmpretrain leaves it out in its data loaders.

    That is ``collate_fn=dict(type='default_collate')``, ``pin_memory=True`` and ``persistent_workers=True``; the latter
    two are False without an accelerator and without workers, which PyTorch warns of or refuses.
    """
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader is not None:
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', get_device() != 'cpu')
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)


def leave_out_validation(cfg: Config) -> None:
    """Make a training one without validation."""
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
