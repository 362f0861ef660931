"""Small anchor heads, their training steps, and two ways of loading them."""

import torch
from mmengine.runner.checkpoint import load_state_dict

import sar_mm  # noqa: F401
from sar_mm.models import SemanticAnchorHead

K, C = 4, 6


def make_head(num_classes=K, channels=C, **options):
    return SemanticAnchorHead(num_classes, channels, **options)


def step(head, right=None):
    """One training step, in which the anchors of the classes ``right`` (None: all) are classified right."""
    num_classes, channels = head.semantic_anchors.shape
    dtype = head.projector[0].weight.dtype
    right = range(num_classes) if right is None else right
    answers = [k if k in right else (k + 1) % num_classes for k in range(num_classes)]
    target = torch.arange(num_classes)
    feature = torch.zeros(num_classes, channels, dtype=dtype, requires_grad=True)
    return head.loss(feature, target, lambda anchors: 20 * torch.eye(num_classes)[answers] + 0 * anchors.sum().float())


def embedded(head):
    return head.projector(head.anchors).detach().float()


def move_projector(head):
    with torch.no_grad():
        head.projector[7].bias.add_(0.5)


def trained(**options):
    head = make_head(**options)
    step(head)
    move_projector(head)
    return head


def load_with_torch(head, state):
    head.load_state_dict(state)


def load_with_mmengine(head, state):
    load_state_dict(head, state, strict=False)
