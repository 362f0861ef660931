import pytest
from mmengine.config import Config

from sar_mm.cli import loaders
from sar_mm.cli.loaders import set_loader_defaults


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_set_loader_defaults__as_mmpretrain_where_a_config_leaves_it_out(monkeypatch, device):
    monkeypatch.setattr(loaders, 'get_device', lambda: device)
    own = dict(num_workers=2, collate_fn=dict(type='pseudo_collate'), pin_memory=False, persistent_workers=False)
    cfg = Config(dict(default_scope='mmpretrain', train_dataloader=dict(num_workers=2), val_dataloader=own))
    cfg.test_dataloader = dict(batch_size=1)
    set_loader_defaults(cfg)
    defaults = dict(collate_fn=dict(type='default_collate'), pin_memory=device != 'cpu')
    assert cfg.train_dataloader == dict(num_workers=2, persistent_workers=True, **defaults)
    assert cfg.val_dataloader == own
    assert cfg.test_dataloader == dict(batch_size=1, persistent_workers=False, **defaults)


def test_set_loader_defaults__of_mmpretrain_alone():
    for scope in ('mmseg', None):
        cfg = Config(dict(default_scope=scope, train_dataloader=dict(num_workers=2), val_dataloader=None))
        set_loader_defaults(cfg)
        assert cfg.train_dataloader == dict(num_workers=2) and cfg.val_dataloader is None
