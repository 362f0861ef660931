"""FixMatch beside a plain loop of its published code, on real digits.

``python tests/models/semi/test_published.py 2500`` prints the table of docs/semi_supervised.md.
"""

import sys
import time
from copy import deepcopy
from statistics import median

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, DefaultScope

THRESHOLD = 0.95
LABELLED, UNLABELLED = 16, 64


def build_model():
    pytest.importorskip('mmpretrain.models')
    import sar_mm  # noqa: F401

    torch.manual_seed(0)
    classifier = dict(
        type='ImageClassifier',
        backbone=dict(type='WideResNet', depth=10, widen_factor=1),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=10,
            in_channels=64,
            init_cfg=dict(type='Xavier', layer='Linear', distribution='normal'),
        ),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(type='SemiClassifier', classifier=classifier, semi=dict(threshold=THRESHOLD)))
    model.init_weights()
    return model.train()


class Digits:
    """Scikit-learn's digits at 16x16, 4 of each class labeled; the last 500 are for the test."""

    def __init__(self):
        datasets = pytest.importorskip('sklearn.datasets').load_digits()
        images = torch.tensor(datasets.images, dtype=torch.float32)[:, None] / 8 - 1
        self.images = F.interpolate(images, size=(16, 16), mode='bilinear').repeat(1, 3, 1, 1)
        self.labels = torch.tensor(datasets.target)
        self.train = len(images) - 500
        own = self.labels[: self.train]
        self.labeled = torch.cat([(own == label).nonzero().flatten()[:4] for label in range(10)])

    def batch(self, generator):
        """Return images and labels of a step, and of unlabeled images two views and what they show."""
        few = self.labeled[torch.randint(len(self.labeled), (LABELLED,), generator=generator)]
        many = torch.randint(self.train, (UNLABELLED,), generator=generator)
        x, weak, strong = (shift(self.images[index], generator) for index in (few, many, many))
        number = len(strong)
        contrast = 0.3 + 1.4 * torch.rand(number, 1, 1, 1, generator=generator)
        brightness = torch.rand(number, 1, 1, 1, generator=generator) - 0.5
        strong = (strong * contrast + brightness).clamp(-1, 1)
        for image, (top, left) in zip(strong, torch.randint(-2, 13, (number, 2), generator=generator).tolist()):
            image[:, max(top, 0) : top + 6, max(left, 0) : left + 6] = 0  # Cutout
        return x, self.labels[few], weak, strong, self.labels[many]


def shift(images, generator):
    padded = F.pad(images, (2, 2, 2, 2), value=-1.0)
    places = torch.randint(5, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + 16, x : x + 16] for image, (y, x) in zip(padded, places)])


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, weight_decay=5e-4, nesterov=True)


def published_step(student, optimizer, batch):
    """FixMatch: one batch in training mode, labels of its weak rows, the mean over all unlabeled images."""
    x, y, weak, strong, truth = batch
    feature = student.neck(student.backbone(torch.cat([x, weak, strong])))
    logits = student.head.fc(feature[-1] if isinstance(feature, tuple) else feature)
    of_x, of_weak, of_strong = logits.split([len(x), len(weak), len(strong)])
    confidence, label = of_weak.detach().softmax(dim=1).max(dim=1)
    mask = confidence >= THRESHOLD
    supervised = F.cross_entropy(of_x, y)
    unsupervised = (F.cross_entropy(of_strong, label, reduction='none') * mask).mean()
    optimizer.zero_grad()
    (supervised + unsupervised).backward()
    optimizer.step()
    return supervised.item(), unsupervised.item(), mask.sum().item(), (mask & (label == truth)).sum().item()


def own_step(model, optimizer, batch):
    from mmpretrain.structures import DataSample

    x, y, weak, strong, truth = batch
    labels = [*y.tolist(), *[None] * len(strong), *truth.tolist()]
    samples = [DataSample() if label is None else DataSample().set_gt_label(label) for label in labels]
    log = model(
        torch.cat([x, strong, weak]),
        samples,
        mode='loss',
        branches=dict(labeled=len(x), strong=len(strong), weak=len(weak)),
    )
    optimizer.zero_grad()
    (log['loss'] + log['loss_unsup']).backward()
    optimizer.step()
    counted = log['pseudo_ratio'].item() * len(weak)
    return log['loss'].item(), log['loss_unsup'].item(), counted, counted * log['pseudo_acc'].item()


@torch.no_grad()
def accuracy(student, digits):
    """Return the accuracy with the statistics of the test batch: the running ones take 5,000 steps to arrive."""
    student = deepcopy(student).train()
    pred = student(digits.images[digits.train :], mode='tensor').argmax(dim=1)
    return (pred == digits.labels[digits.train :]).float().mean().item()


def train_both(steps):
    """Return what each step of both gave, (2, steps, 4), and the accuracies."""
    digits, model = Digits(), build_model()
    student = deepcopy(model.student)
    optimizers = sgd(student), sgd(model)
    generator = torch.Generator().manual_seed(0)
    history, seconds = [[], []], [[], []]
    for _ in range(steps):
        batch = digits.batch(generator)
        for index, (step, trained) in enumerate(((published_step, student), (own_step, model))):
            start = time.process_time()
            history[index].append(step(trained, optimizers[index], batch))
            seconds[index].append(time.process_time() - start)
    print(
        'CPU ms of a step, median: published {:.1f}, SemiClassifier {:.1f}'.format(*(1e3 * median(s) for s in seconds))
    )
    return torch.tensor(history), [accuracy(student, digits), accuracy(model.student, digits)], (student, model)


def shares(history, end, length=250):
    """Return the share of pseudo-labels that count in the steps up to one, and the share of these that is right."""
    counted, right = history[end - length : end, 2].sum(), history[end - length : end, 3].sum()
    return (counted / (length * UNLABELLED)).item(), (right / counted.clamp(min=1)).item()


def test_fixmatch__first_steps_are_the_published_ones():
    history, _, (student, model) = train_both(4)
    torch.testing.assert_close(history[1], history[0], rtol=1e-5, atol=1e-5)
    state = model.student.state_dict()
    for name, value in student.state_dict().items():  # running statistics, once per step, too
        torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_fixmatch__500_steps_are_like_the_published_ones():
    history, accuracies, _ = train_both(500)
    torch.testing.assert_close(history[1][0, :2], history[0][0, :2], rtol=1e-5, atol=1e-5)
    for end in (250, 500):
        published, own = (torch.tensor(shares(each, end)) for each in history)
        torch.testing.assert_close(own, published, rtol=0, atol=0.1)
    assert shares(history[1], 500)[0] > 0.3 and shares(history[1], 500)[1] > 0.7
    assert abs(accuracies[1] - accuracies[0]) < 0.06 and accuracies[1] > 0.7


if __name__ == '__main__':
    history, accuracies, _ = train_both(int(sys.argv[1]))
    for end in [end for end in (250, 500, 1000, 2000, 2500) if end <= int(sys.argv[1])]:
        rows = ['{:.3f}/{:.3f}'.format(*shares(each, end)) for each in history]
        print(f'steps up to {end}: published {rows[0]}, SemiClassifier {rows[1]}')
    print('accuracy: published {:.3f}, SemiClassifier {:.3f}'.format(*accuracies))
