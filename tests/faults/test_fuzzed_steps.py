"""2,000 training steps of drawn shapes, labels, dtypes, scales and options: what becomes NaN."""

import random
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import sar_mm  # noqa: F401
from sar_mm.models import SemanticAnchorHead

pytestmark = [pytest.mark.slow, pytest.mark.ci]

CASES, STEPS, MODEL_STEPS = 90, 5, 100  # 4 dtypes * 90 * 5 + 2 models * 100 = 2,000
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SCALES = [0.0, 1e-30, 1e-12, 1e-3, 1.0, 1.0, 1.0, 1e3, 1e12, 1e19, 1e30]
LABELS = ['uniform', 'uniform', 'one_class', 'ignored', 'mixed', 'out_of_range', 'soft']
LOSS_SCALE = 2.0**16  # what torch.amp.GradScaler starts with


def draw_case(rng, dtype):
    """Draw a head, a classifier and what the features and labels of its steps are like."""
    num_classes, channels = rng.choice([2, 3, 7, 20]), rng.choice([1, 2, 5, 16, 40])
    size = rng.choice([(), (1,), (9,), (1, 1), (1, 5), (4, 4), (7, 3)])
    case = SimpleNamespace(
        num_classes=num_classes,
        shape=(rng.choice([1, 1, 2, 5]), channels, *size),
        labels=rng.choice(LABELS if not size else LABELS[:-1]),
        options=dict(
            gate_threshold=rng.choice([1e-6, 0.5, 0.8]),
            gate_per_class=rng.random() < 0.5,
            momentum=rng.choice([0.0, 0.5, 0.999, 1.0]),
            ignore_index=rng.choice([255, None, 0]),
            seed=rng.randrange(100),
            anchors=dict(type=rng.choice(['GaussianAnchors', 'SeparatedAnchors']), dim=16, seed=rng.randrange(100)),
            loss=dict(class_balanced=rng.random() < 0.5, separation_weight=rng.choice([0.0, 1.0])),
        ),
        scale=rng.choice([scale for scale in SCALES if dtype != torch.float16 or scale < 1e5]),
        opens=rng.random() < 0.7,
        optimizer=rng.choice([torch.optim.SGD, torch.optim.AdamW]),
    )
    if case.options['anchors']['type'] == 'SeparatedAnchors':
        case.options['anchors']['steps'] = 2
    return case


def draw_target(case, generator):
    places = (case.shape[0], *case.shape[2:])
    if case.labels == 'soft':
        scores = torch.rand(places[0], case.num_classes, generator=generator).relu()
        return scores * (torch.rand(scores.shape, generator=generator) < 0.5)  # some are all zeros
    label = torch.randint(case.num_classes, places, generator=generator)
    if case.labels == 'one_class':
        label.fill_(case.num_classes - 1)
    elif case.labels == 'ignored':
        label.fill_(255)
    elif case.labels in ('mixed', 'out_of_range'):
        other = 255 if case.labels == 'mixed' else torch.randint(-300, 300, places, generator=generator)
        label = torch.where(torch.rand(places, generator=generator) < 0.5, label, other)
    return label


def task_loss(logits, target, num_classes):
    """Cross-entropy as mmseg and mmpretrain take it: over all, where the label is no class with 0."""
    if target.is_floating_point():
        return F.cross_entropy(logits, target)
    valid = (target >= 0) & (target < num_classes)
    return F.cross_entropy(logits, target.where(valid, torch.tensor(-100)), reduction='none').mean()


def are_finite(tensors):
    return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor is not None)


class Trainer:
    """A shift of the features, a classifier and its anchors under an optimiser and, in float16, a loss scale."""

    def __init__(self, case, dtype, seed):
        self.case, self.dtype, self.is_low = case, dtype, dtype in (torch.bfloat16, torch.float16)
        torch.manual_seed(seed)
        channels = case.shape[1]
        self.head = SemanticAnchorHead(case.num_classes, channels, **case.options)
        self.classifier = nn.Linear(channels, case.num_classes)
        if case.opens:
            with torch.no_grad():
                embedded = self.head.projector(self.head.anchors)
                self.classifier.weight.copy_((torch.linalg.pinv(embedded) * 8).t())
        shift = nn.ParameterList([nn.Parameter(torch.zeros(channels, *[1] * (len(case.shape) - 2)))])
        self.model = nn.ModuleList([self.head, self.classifier, shift])
        if dtype == torch.float64:
            self.model.double()
        self.optimizer = case.optimizer(self.model.parameters(), lr=0.05)
        self.loss_scale = LOSS_SCALE if dtype == torch.float16 else 1.0
        self.generator = torch.Generator().manual_seed(seed)

    def step(self, found):
        case, shift = self.case, self.model[2][0]
        data = case.scale * torch.randn(case.shape, generator=self.generator)
        target = draw_target(case, self.generator)
        with torch.autocast('cpu', dtype=self.dtype if self.is_low else torch.bfloat16, enabled=self.is_low):
            feature = (data.to(shift.dtype) + shift).to(self.dtype)
            rows = feature.movedim(1, -1)
            logits = self.classifier(rows).movedim(-1, 1)
            losses = self.head.loss(feature, target, self.classifier)
        task = task_loss(logits.float(), target, case.num_classes)
        found['steps'] += 1
        found['open'] += losses['anchor_gate'].item() > 0
        parameters = list(self.model.parameters())
        own = torch.autograd.grad(self.loss_scale * task, parameters, retain_graph=True, allow_unused=True)
        total = task + sum(value for name, value in losses.items() if 'loss' in name)
        self.optimizer.zero_grad()
        (self.loss_scale * total).backward()
        gradients = [parameter.grad for parameter in parameters]
        is_fine = are_finite([task]) and are_finite(own)
        if is_fine and self.dtype != torch.float16:
            assert are_finite(gradients), case
            assert not total.isnan(), (case, losses)
        if are_finite(gradients):  # what GradScaler does
            for gradient in gradients:
                gradient.div_(self.loss_scale)
            if case.scale > 1e3 and case.optimizer is torch.optim.SGD:
                # Unclipped, one step of SGD throws the weights as far as the features are.
                nn.utils.clip_grad_norm_(parameters, 10.0)
            self.optimizer.step()
        else:
            found['skipped'] += 1
            self.loss_scale /= 2
        assert are_finite(self.model.state_dict().values()), case


def record(record_property, what, found):
    record_property('fault', f'{found["steps"]} steps, {what}')
    record_property(
        'outcome',
        f'no NaN or Inf in a weight or an anchor; gate open in {found["open"]} steps, {found["skipped"]} skipped for '
        f'gradients that overflowed',
    )


@pytest.mark.parametrize('dtype', DTYPES, ids=lambda dtype: str(dtype).split('.')[-1])
def test_step__leaves_no_nan(dtype, record_property):
    rng = random.Random(DTYPES.index(dtype))
    found = dict(steps=0, open=0, skipped=0)
    for index in range(CASES):
        trainer = Trainer(draw_case(rng, dtype), dtype, seed=index)
        for _ in range(STEPS):
            trainer.step(found)
    assert found['steps'] == CASES * STEPS and found['open'] > found['steps'] / 3
    assert (found['skipped'] > 0) == (dtype == torch.float16)
    record(record_property, f'anchor head and classifier alone, {str(dtype).split(".")[-1]}', found)


@pytest.mark.parametrize('kind', ['seg', 'cls'])
def test_step__of_whole_models_leaves_no_nan(kind, make_model, make_batch, sar_heads, open_gate, record_property):
    rng = random.Random(kind)
    found = dict(steps=0, open=0, skipped=0)
    while found['steps'] < MODEL_STEPS:
        case = draw_case(rng, torch.float32)
        options = dict(case.options, ignore_index=255)
        model = make_model(kind, sar=True, anchor_head=options)
        for head in sar_heads(model) if case.opens else ():
            open_gate(head, 0.9)
        optimizer = case.optimizer(model.parameters(), lr=0.01)
        dtype = rng.choice(DTYPES[:1] + DTYPES[2:])
        for step in range(STEPS):
            images, samples = make_batch(kind, step)
            number = rng.choice([1, len(samples)])
            if rng.random() < 0.3:
                for sample in samples:
                    if kind == 'seg':
                        sample.gt_sem_seg.data.fill_(rng.choice([2, 255]))
                    else:
                        sample.set_gt_label(rng.choice([2, -100]))
            with torch.autocast(
                'cpu', dtype=torch.bfloat16 if dtype == torch.float32 else dtype, enabled=dtype != DTYPES[0]
            ):
                losses = model(case.scale * images[:number], samples[:number], mode='loss')
            task = sum(value.mean() for name, value in losses.items() if is_task(name))
            total = sum(value.mean() for name, value in losses.items() if 'loss' in name)
            # Where features overflow and all is ignored, the task loss is 0 and its gradient NaN.
            own = torch.autograd.grad(task, list(model.parameters()), retain_graph=True, allow_unused=True)
            optimizer.zero_grad()
            (LOSS_SCALE * total).backward()
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            assert total.isfinite() or not (task.isfinite() and are_finite(own)), (case, losses)
            if are_finite(gradients):
                for gradient in gradients:
                    gradient.div_(LOSS_SCALE)
                nn.utils.clip_grad_norm_(model.parameters(), 10.0)
                optimizer.step()
            else:
                found['skipped'] += 1
            found['steps'] += 1
            found['open'] += max(value.item() for name, value in losses.items() if name.endswith('anchor_gate')) > 0
            assert are_finite(model.parameters()), case
            assert all(are_finite(head.anchor_head.buffers()) for head in sar_heads(model)), case
    record(record_property, f'{kind}: whole models, float32, bfloat16 and float16', found)


def is_task(name):
    return 'loss' in name and not any(own in name for own in ('loss_anchor', 'loss_pull', 'loss_separation'))
