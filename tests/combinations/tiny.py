"""What the rows share: images in memory, and a hook that opens the gates and keeps what the anchors do."""

from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Iterator, List
from unittest.mock import patch

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import DATASETS, HOOKS
from torch import nn

from sar_mm.models.anchor_head import SemanticAnchorHead
from sar_mm.models.heads import SARHeadMixin

SIZE = 16
FORMAT = 'yapf.yapflib.yapf_api.FormatCode'  # of configs, in mmengine


@DATASETS.register_module(force=True)
class TinyImages(BaseDataset):
    """Random images with labels.

    Args:
        kind: 'segmentation', 'classification' or 'multi-label'.
        num_classes: K.
        count: How many images.
        first: Number of the first one: data sets with other numbers have other images.
    """

    def __init__(self, kind: str, num_classes: int, count: int = 8, first: int = 0, **kwargs: Any) -> None:
        self.kind, self.num_classes, self.count, self.first = kind, num_classes, count, first
        classes = tuple(f'class {k}' for k in range(num_classes))
        palette = [[k, k, k] for k in range(num_classes)]
        # To serialise its list, mmengine collects garbage, which takes longer than a run here.
        super().__init__(metainfo=dict(classes=classes, palette=palette), serialize_data=False, **kwargs)

    def load_data_list(self) -> List[dict]:
        return [self.make(number) for number in range(self.first, self.first + self.count)]

    def make(self, number: int) -> dict:
        draw = np.random.default_rng(number)
        image = draw.integers(256, size=(SIZE, SIZE, 3), dtype=np.uint8)
        info = dict(img=image, img_path=f'{number}.png', img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE))
        if self.kind == 'segmentation':
            labels = draw.integers(self.num_classes, size=(4, 4)).repeat(4, 0).repeat(4, 1)
            labels[:2] = 255
            return dict(info, gt_seg_map=labels.astype(np.uint8), seg_fields=['gt_seg_map'])
        label = number % self.num_classes
        return dict(info, gt_label=[label, (label + 1) % self.num_classes] if self.kind == 'multi-label' else label)

    def get_cat_ids(self, idx: int) -> List[int]:
        if self.kind == 'segmentation':
            raise NotImplementedError
        return np.ravel(self.get_data_info(idx)['gt_label']).tolist()


@HOOKS.register_module(force=True)
class AnchorSteps(Hook):
    """Opens the gates before the first step of a run, and keeps what each step does to the semantic anchors.

    ``steps`` has, per step and anchor head, S and ``initialized`` before the step, the embedded anchors of the step,
    and S and ``initialized`` after it; ``validated`` has the metrics by iteration.
    """

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.steps: List[dict] = []
        self.validated: dict = {}
        self._handles: list = []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        model = unwrapped(runner.model)
        if runner.iter == 0:
            open_gates(model)
        step = {}
        for name, head in anchor_heads(model).items():
            step[name] = record = dict(before=state(head), embedded=[])

            def keep(module, inputs, output, record=record) -> None:
                record['embedded'].append(output.detach().clone())

            self._handles.append(head.projector.register_forward_hook(keep))
        self.steps.append(step)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for name, head in anchor_heads(unwrapped(runner.model)).items():
            self.steps[-1][name].update(after=state(head), momentum=head.momentum)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.validated[runner.iter] = dict(metrics)


@contextmanager
def hurrying() -> Iterator[None]:
    """Leave out what takes most of the time of a tiny run: waiting loaders, and the layout of configs."""
    with patch('time.sleep', lambda seconds: None), patch(FORMAT, lambda code, **kwargs: (code, False)):
        yield


def unwrapped(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model):
        model = model.module
    return model


def anchor_heads(model: nn.Module) -> dict:
    """Return the anchor heads that are trained, by name: not a teacher's."""
    modules = model.named_modules()
    return {name: m for name, m in modules if isinstance(m, SemanticAnchorHead) and not name.startswith('teacher.')}


def state(head: nn.Module) -> tuple:
    return head.semantic_anchors.clone(), head.initialized.clone()


@torch.no_grad()
def open_gates(model: nn.Module) -> None:
    """Set the classifiers such that each classifies its embedded anchors right."""
    for head in model.modules():
        if not isinstance(head, SARHeadMixin) or not isinstance(head.anchor_head, SemanticAnchorHead):
            continue
        embedded = deepcopy(head.anchor_head.projector).train()(head.anchor_head.anchors)
        classes = len(embedded)
        for layer in [head.layers.head, head.layers.head_dist] if hasattr(head, 'layers') else [head.classifier_layer]:
            wanted = 4.0 * torch.eye(classes)
            if len(layer.weight) == 1:
                wanted = torch.tensor([[-4.0], [4.0]])
            layer.weight.copy_((torch.linalg.pinv(embedded) @ wanted).t().reshape(layer.weight.shape))
            if getattr(layer, 'bias', None) is not None:
                layer.bias.zero_()
