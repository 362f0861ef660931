"""Runs that are resumed, or start from weights, with the predefined anchors of another config, or of a missing file."""

import numpy as np
import pytest
import torch
from mmengine.runner import Runner

import sar_mm  # noqa: F401
from sar_mm.checks import UsageError
from sar_mm.engine.checks import check_run
from sar_mm.engine.runner import ResumableRunner

pytest.importorskip('mmpretrain.models')
from mmengine.model import BaseModel  # noqa: E402

from sar_mm.registry import MODELS  # noqa: E402

K, C = 3, 6


class Model(BaseModel):
    def __init__(self, anchors):
        super().__init__()
        options = dict(anchors=anchors, gate_threshold=0.01, gate_per_class=True)
        self.head = MODELS.build(
            dict(type='SARLinearClsHead', num_classes=K, in_channels=C, anchor_head=options, cal_acc=False)
        )

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.head.loss((torch.stack(inputs),), data_samples)


def items():
    from mmpretrain.structures import DataSample

    inputs = torch.randn(6, C, generator=torch.Generator().manual_seed(0))
    return [dict(inputs=each, data_samples=DataSample().set_gt_label(k % K)) for k, each in enumerate(inputs)]


@pytest.fixture
def train(tmp_path):
    def train(anchors, until, kind=ResumableRunner, **options):
        runner = kind(
            model=Model(anchors),
            work_dir=str(tmp_path / 'run'),
            train_dataloader=dict(dataset=items(), sampler=dict(type='InfiniteSampler'), batch_size=6),
            train_cfg=dict(by_epoch=False, max_iters=until),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
            default_scope='mmpretrain',
            experiment_name=f'run{np.random.default_rng().integers(2**40)}',
            **options,
        )
        runner.train()
        return runner.model.head.anchor_head

    return train


def test_resume__with_other_anchors_is_an_error(train):
    train(dict(type='GaussianAnchors'), 2)
    for other in (dict(type='SimplexETFAnchors'), dict(type='GaussianAnchors', seed=7)):
        name, value = list(other.items())[-1]
        with pytest.raises(UsageError, match=rf'model\.head\.anchor_head\.anchors: .*{name}={value!r}.*load_from'):
            train(other, 3, resume=True)
    train(dict(type='GaussianAnchors'), 3, resume=True)


@pytest.mark.parametrize('kind', [ResumableRunner, Runner])
def test_load_from__with_other_anchors_takes_those_of_the_config(kind, train, tmp_path):
    before = train(dict(type='GaussianAnchors'), 2)
    with pytest.warns(UserWarning, match="type='SimplexETFAnchors'.*S restarts"):
        after = train(dict(type='SimplexETFAnchors'), 1, kind, load_from=str(tmp_path / 'run' / 'iter_2.pth'))
    cosine = torch.nn.functional.cosine_similarity(after.anchors[0], after.anchors[1], dim=0)
    torch.testing.assert_close(cosine, torch.tensor(-1 / (K - 1)))
    assert before.initialized.any() and not torch.equal(before.anchors, after.anchors)


def test_anchors_of_a_missing_file(train, tmp_path):
    path = tmp_path / 'names.npy'
    np.save(path, np.random.default_rng(0).standard_normal((K, 11)).astype(np.float32))
    anchors = dict(type='EmbeddingAnchors', path=str(path))
    train(anchors, 4)
    whole = train(anchors, 4, resume=True).state_dict()
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(tmp_path / 'run' / 'iter_2.pth'))
    path.unlink()
    resumed = train(anchors, 4, resume=True).state_dict()  # the checkpoint has them
    assert all(torch.equal(whole[name], value) for name, value in resumed.items())
    with pytest.raises(FileNotFoundError, match='names.npy'):
        train(anchors, 1)


def test_check_run__names_a_missing_file_of_anchors(tmp_path):
    runner = Runner(
        model=Model(dict(type='EmbeddingAnchors', path=str(tmp_path / 'gone.npy'))),
        work_dir=str(tmp_path),
        train_dataloader=dict(dataset=items(), sampler=dict(type='InfiniteSampler'), batch_size=6),
        train_cfg=dict(by_epoch=False, max_iters=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        experiment_name='missing',
        default_scope='mmpretrain',
    )
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    with pytest.raises(UsageError, match=r'model\.head\.anchor_head\.anchors\.path: .*gone\.npy'):
        check_run(runner)
