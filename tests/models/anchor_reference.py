"""An anchor head, its classifier and batches, and the same head written down naively."""

import math

import torch
from torch import nn

import sar_mm  # noqa: F401
from sar_mm.models import SemanticAnchorHead

KEYS = ['anchor_acc', 'anchor_conf', 'anchor_cos', 'anchor_cos_mean', 'anchor_gate', 'loss_anchor', 'loss_pull']
K, C = 4, 6


def make_head(**options):
    # With so few channels, the embedded anchors of some seeds are linearly dependent: no classifier tells them apart.
    return SemanticAnchorHead(K, C, **{'seed': 3, **options})


def make_batch(kind, seed=0, labels=(0, 1, 2, 3, 255)):
    generator = torch.Generator().manual_seed(seed)
    shape = dict(segmentation=(2, C, 3, 4), classification=(8, C))[kind]
    feature = torch.randn(shape, generator=generator)
    choice = torch.randint(len(labels), shape[:1] + shape[2:], generator=generator)
    return feature, torch.tensor(labels)[choice]


def make_classifier(seed=0):
    classifier = nn.Linear(C, K)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        classifier.weight.copy_(0.3 * torch.randn(K, C, generator=generator))
        classifier.bias.zero_()
    return classifier


def opened(anchors):
    """Answer to every anchor with its class, in the graph."""
    return 10 * torch.eye(K) + 0 * anchors.sum()


def closed(anchors):
    """Answer to every anchor with the first class, in the graph."""
    return 10 * torch.eye(K)[[0] * K] + 0 * anchors.sum()


class Reference:
    """The method as its description says it, with Python decisions, plain layers and float64."""

    def __init__(self, head, momentum, gate_threshold, anchor_weight, pull_weight, confidence_threshold):
        self.anchors = head.anchors.double()
        self.projector = nn.ModuleList()
        for index in (0, 3, 6):
            weight = head.projector[index].weight
            linear = nn.Linear(weight.shape[1], C, bias=index != 6).double()
            norm = nn.BatchNorm1d(C).double()
            linear.load_state_dict(head.projector[index].state_dict())
            self.projector += [linear, norm]
        self.semantic = torch.zeros(K, C, dtype=torch.float64)
        self.initialized = False
        self.momentum = momentum
        self.gate_threshold, self.confidence_threshold = gate_threshold, confidence_threshold
        self.anchor_weight, self.pull_weight = anchor_weight, pull_weight

    def step(self, feature, target, classifier):
        embedded = self.anchors
        for layer in self.projector:
            embedded = layer(embedded)
            if isinstance(layer, nn.BatchNorm1d):
                embedded = embedded.clamp(min=0)
        logits = classifier(embedded)
        costs, right, smallest = [], 0, 1.0
        for k in range(K):
            log_probability = logits[k, k] - logits[k].logsumexp(0)
            costs.append(-log_probability)
            right += int(max(range(K), key=lambda j: logits[k, j].item()) == k)
            smallest = min(smallest, math.exp(log_probability.item()))
        doubtful = [cost for cost in costs if math.exp(-cost.item()) <= self.confidence_threshold]
        loss_anchor = 0 * logits.sum()
        if doubtful:
            loss_anchor = sum(cost * cost for cost in doubtful) / sum(doubtful)
        is_open = right == K and smallest > self.gate_threshold
        if is_open:
            if not self.initialized:
                self.semantic = embedded.detach().clone()
            else:
                self.semantic = self.momentum * self.semantic + (1 - self.momentum) * embedded.detach()
            self.initialized = True
        loss_pull = 0 * feature.sum()
        if is_open:
            rows, labels = feature, target
            if feature.dim() == 4:
                height, width = feature.shape[2:]
                rows = torch.stack(
                    [feature[n, :, i, j] for n in range(len(feature)) for i in range(height) for j in range(width)]
                )
                labels = [
                    target[n, i * target.shape[1] // height, j * target.shape[2] // width]
                    for n in range(len(feature))
                    for i in range(height)
                    for j in range(width)
                ]
            valid = [(row, int(label)) for row, label in zip(rows, labels) if 0 <= int(label) < K]
            for row, label in valid:
                loss_pull = loss_pull + ((row - self.semantic[label]) ** 2).sum() / (C * len(valid))
        cosines = []
        for j in range(K):
            for k in range(K):
                if j != k:
                    norms = embedded[j].norm().item() * embedded[k].norm().item()
                    cosines.append((embedded[j] @ embedded[k]).item() / norms if norms else 0.0)
        return dict(
            loss_anchor=self.anchor_weight * loss_anchor,
            loss_pull=self.pull_weight * loss_pull,
            anchor_acc=right / K,
            anchor_conf=smallest,
            anchor_gate=float(is_open),
            anchor_cos=max(cosines),
            anchor_cos_mean=sum(cosines) / len(cosines),
        )
