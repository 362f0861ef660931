"""The SAR version of MultiTaskHead, whose heads have anchors of their own."""

import pytest
import torch
from cls_parts import LABELS, features

pytest.importorskip('mmpretrain.models')

import mmpretrain.models.heads as stock_heads  # noqa: E402
from mmpretrain.registry import MODELS  # noqa: E402
from mmpretrain.structures import DataSample, MultiTaskDataSample  # noqa: E402

from sar_mm.models.heads import SARHeadMixin, cls_heads  # noqa: E402


def multi_task(**options):
    tasks = dict(
        shape=dict(type='LinearClsHead', num_classes=4),
        colour=dict(type='mmpretrain.VisionTransformerClsHead', num_classes=3, anchor_head=dict(gate_threshold=0.5)),
        size=dict(type=stock_heads.LinearClsHead, num_classes=2),
    )
    torch.manual_seed(0)
    return cls_heads.SARMultiTaskHead(task_heads=tasks, in_channels=6, **options)


def task_samples(*tasks):
    samples = []
    for label in LABELS:
        sample = MultiTaskDataSample()
        for task in tasks:
            sample.set_field(DataSample().set_gt_label(label % 2), task)
        samples.append(sample)
    return samples


def test_multi_task__sub_heads_get_anchors(added_keys, open_all):
    head = multi_task(anchor_head=dict(gate_threshold=0.7))
    assert [type(sub).__name__ for sub in head.task_heads.values()] == [
        'SARLinearClsHead',
        'SARVisionTransformerClsHead',
        'SARLinearClsHead',
    ]
    assert [sub.anchor_head.gate_threshold for sub in head.task_heads.values()] == [0.7, 0.5, 0.7]
    losses = head.loss(features('LinearClsHead'), task_samples('shape', 'colour', 'size'))
    for task in ('shape', 'colour', 'size'):
        assert {f'{task}_{key}' for key in added_keys | {'loss', 'mask_size'}} <= set(losses)
        assert losses[f'{task}_loss_pull'] > 0


def test_multi_task__absent_task_keeps_keys_and_parameters(open_all):
    head = multi_task()
    everything = head.loss(features('LinearClsHead'), task_samples('shape', 'colour', 'size'))
    losses = head.loss(features('LinearClsHead'), task_samples('shape'))
    assert set(losses) == set(everything)
    assert losses['shape_loss_pull'] > 0 and losses['colour_loss_pull'] == losses['size_loss_pull'] == 0
    assert losses['colour_loss_anchor'] > 0 and losses['colour_anchor_gate'] == 1
    sum(value for key, value in losses.items() if 'loss' in key).backward()
    assert [key for key, parameter in head.named_parameters() if parameter.grad is None] == []


def test_multi_task__partly_labeled_batch(open_all):
    head = multi_task()
    feats = features('LinearClsHead')
    samples = [MultiTaskDataSample() for _ in LABELS]
    for sample in samples[:4]:
        sample.set_field(DataSample().set_gt_label(1), 'shape')
    samples[2].set_field(DataSample().set_gt_label(2), 'colour')
    losses = head.loss(feats, samples)
    anchors = head.task_heads['colour'].anchor_head.semantic_anchors
    expected = 0.1 * (feats[0][2].detach() - anchors[2]).square().mean()
    torch.testing.assert_close(losses['colour_loss_pull'].detach(), expected)
    assert losses['shape_loss_pull'] > 0 and losses['size_loss_pull'] == 0


def test_multi_task__own_and_built_sub_heads():
    class MyHead(stock_heads.LinearClsHead):
        pass

    MODELS.register_module(module=MyHead, name='MyTaskHead', force=True)
    built = cls_heads.SARLinearClsHead(num_classes=3, in_channels=6)
    tasks = dict(
        own=dict(type='MyTaskHead', num_classes=2), sar=dict(type='SARLinearClsHead', num_classes=2), built=built
    )
    head = cls_heads.SARMultiTaskHead(task_heads=tasks, in_channels=6)
    assert isinstance(head.task_heads['own'], MyHead)
    assert all(isinstance(sub, SARHeadMixin) for sub in head.task_heads.values())
    assert head.task_heads['built'] is built
    with pytest.raises(TypeError, match='configs of stock heads, or SAR heads, but got a LinearClsHead'):
        cls_heads.SARMultiTaskHead(task_heads=dict(a=stock_heads.LinearClsHead(num_classes=3, in_channels=6)))


def test_multi_task__sub_head_without_classes():
    if 'LinearRegressionHead' not in MODELS.module_dict:
        pytest.skip('this mmpretrain has no regression head')
    with pytest.raises(TypeError, match='LinearRegressionHead can have no semantic anchors: it regresses numbers'):
        cls_heads.SARMultiTaskHead(task_heads=dict(age=dict(type='LinearRegressionHead')), num_classes=1, in_channels=6)
