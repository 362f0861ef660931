"""NaN, Inf and overflow, batches of one, classes that do not occur, and counts: what becomes of weights and anchors."""

import copy

import pytest
import torch
import torch.nn.functional as F
from outcomes import first_sentence
from torch import nn

import sar_mm  # noqa: F401
from sar_mm.models import SemanticAnchorHead
from sar_mm.models.semi.pseudo_labels import PseudoLabels
from sar_mm.registry import MODELS

KINDS = ['seg', 'cls']


def are_finite(tensors):
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def total_of(losses):
    return sum(value.mean() for name, value in losses.items() if 'loss' in name)


def opened(model, sar_heads, open_gate):
    for head in sar_heads(model):
        open_gate(head)
    return model


# ----- NaN, Inf and overflow


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('kind', KINDS)
def test_nan__in_an_image_stays_out_of_the_semantic_anchors(
    kind, value, make_model, make_batch, sar_heads, open_gate, record_property
):
    for sar in (False, True):
        model = opened(make_model(kind, sar=sar), sar_heads, open_gate)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        gates = []
        for step in range(4):
            images, samples = make_batch(kind, step)
            if step == 1:
                images[0, 0, :4, :4] = value
            losses = model(images, samples, mode='loss')
            optimizer.zero_grad()
            total_of(losses).backward()
            optimizer.step()
            gates += [item.item() for name, item in losses.items() if name.endswith('anchor_gate')][:1]
        assert not are_finite(model.parameters())  # of the stock model, too
    assert gates == [1, 1, 0, 0]
    for head in sar_heads(model):
        assert are_finite(head.anchor_head.buffers()) and head.anchor_head.semantic_anchors.any()
    record_property('fault', f'{kind}: an image with {value} in step 2 of 4, float32, every step taken')
    record_property('outcome', f'weights become NaN, as in the stock model; gate {gates}, semantic anchors finite')


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=['float16', 'bfloat16'])
@pytest.mark.parametrize('value', [float('nan'), 1e6])
@pytest.mark.parametrize('kind', KINDS)
def test_overflow__under_a_loss_scale_is_a_skipped_step(
    kind, value, dtype, make_model, make_batch, sar_heads, open_gate, record_property
):
    model = opened(make_model(kind, sar=True), sar_heads, open_gate)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)
    skipped = []
    for step in range(5):
        images, samples = make_batch(kind, step)
        if step == 2:
            images[0] = value
            images[0, :, ::2] = -value
        before, scale = copy.deepcopy(list(model.parameters())), scaler.get_scale()
        with torch.autocast('cpu', dtype=dtype):
            losses = model(images, samples, mode='loss')
        optimizer.zero_grad()
        scaler.scale(total_of(losses)).backward()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < scale:
            skipped.append(step + 1)
            assert all(torch.equal(new, old) for new, old in zip(model.parameters(), before))
    overflows = value != value or dtype == torch.float16
    assert skipped == ([3] if overflows else [])
    assert are_finite(model.parameters())
    for head in sar_heads(model):
        assert are_finite(head.anchor_head.buffers())
    assert are_finite([total_of(losses)]) and all(v == 1 for k, v in losses.items() if k.endswith('anchor_gate'))
    name = str(dtype).split('.')[-1]
    record_property('fault', f'{kind}: an image of {value} in step 3 of 5, autocast to {name}, loss scale')
    running = 'finite' if are_finite(model.buffers()) else 'NaN'
    assert (running == 'NaN') == overflows  # those of the backbone, in the stock model as well
    record_property(
        'outcome',
        f'steps skipped: {skipped or "none"}; weights and semantic anchors finite, gate open after; running statistics '
        f'of batch normalisation {running}',
    )


@pytest.mark.parametrize('per_class', [False, True])
@pytest.mark.parametrize('is_open', [False, True])
def test_pull__of_huge_features_is_no_nan(is_open, per_class, record_property):
    head = SemanticAnchorHead(5, 8, gate_per_class=per_class)
    feature = torch.full((6, 8), 1e25, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 255, 255])
    losses = head.loss(feature, target, lambda anchors: 20 * is_open * torch.eye(5) + 0 * anchors.sum())
    total_of(losses).backward()
    assert not losses['loss_pull'].isnan() and feature.grad.isfinite().all() and not feature.grad[4:].any()
    assert losses['anchor_gate'] == is_open and bool(feature.grad.any()) == is_open
    if not is_open:
        assert losses['loss_pull'] == 0
    record_property('fault', f'features of 1e25, float32, gate{"s" * per_class} {"open" if is_open else "closed"}')
    record_property('outcome', f'loss_pull {losses["loss_pull"].item()}, gradients finite')


def test_pull__of_huge_ignored_features_is_that_of_the_others(record_property):
    head, generator = SemanticAnchorHead(5, 8), torch.Generator().manual_seed(0)
    feature, target = torch.randn(6, 8, generator=generator), torch.tensor([0, 1, 2, 3, 255, 255])
    found = []
    for scale in (1, 1e25):
        feature[4:] *= scale
        losses = copy.deepcopy(head).loss(feature, target, lambda anchors: 20 * torch.eye(5))
        found.append(losses['loss_pull'].item())
    assert found[0] == found[1] > 0
    record_property('fault', 'features of 1e25 at ignored places')
    record_property('outcome', f'loss_pull {found[1]:.4f}, the same as without')


def test_anchors__whose_logits_are_huge_learn_on(record_property):
    head = SemanticAnchorHead(5, 8)
    weight = 1e25 * torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    losses = head.loss(torch.zeros(2, 8), torch.tensor([0, 1]), lambda anchors: F.linear(anchors, weight))
    total_of(losses).backward()
    assert losses['loss_anchor'].isfinite() and are_finite(parameter.grad for parameter in head.parameters())
    record_property('fault', 'anchor logits of 1e25, float32')
    record_property('outcome', f'loss_anchor {losses["loss_anchor"].item():.2g}, gradients finite')


@pytest.mark.parametrize('threshold', [0.95, dict(type='SelfAdaptiveThreshold')], ids=['fixed', 'adaptive'])
def test_pseudo_labels__of_nan_predictions_count_not_and_poison_nothing(threshold, record_property):
    module = PseudoLabels(3, threshold, dict(target='labeled'))
    generator = torch.Generator().manual_seed(0)
    probability, labels = (8 * torch.rand(40, 3, generator=generator)).softmax(1), torch.arange(40) % 3
    counted = torch.ones(40, dtype=torch.bool)
    module(probability, labels, counted)
    before = {name: value.clone() for name, value in module.named_buffers()}
    broken = probability.clone()
    broken[0] = float('nan')
    _, counts, _ = module(broken, labels, counted)
    assert not counts[0]
    changed = [name for name, value in module.named_buffers() if not torch.equal(value, before[name])]
    assert set(changed) <= {'alignment.wanted'} and are_finite(module.buffers())
    _, counts, log = module(probability, labels, counted)
    assert counts.any() and are_finite(log.values())
    record_property('fault', f'NaN in what a teacher predicts, threshold {threshold}')
    record_property('outcome', f'it is no label; averages stay; {counts.sum().item()} of 40 count in the next step')


# ----- Few images, few classes


@pytest.mark.parametrize('kind', KINDS)
def test_batch__of_one_trains(kind, make_model, make_batch, sar_heads, open_gate, record_property):
    model = opened(make_model(kind, sar=True), sar_heads, open_gate)
    images, samples = make_batch(kind)
    losses = model(images[:1], samples[:1], mode='loss')
    total_of(losses).backward()
    assert are_finite(losses.values())
    assert are_finite(parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    record_property('fault', f'{kind}: a batch of one image')
    record_property('outcome', f'trains; loss {total_of(losses).item():.2f}')


@pytest.mark.parametrize('sar', [False, True])
def test_batch__of_one_with_maps_of_one_pixel_is_refused_by_batch_norm(
    sar, make_model, make_seg_samples, record_property
):
    with pytest.raises(ValueError, match='Expected more than 1 value per channel when training') as error:
        make_model('seg', sar=sar).train()(torch.randn(1, 3, 8, 8), make_seg_samples(1, 8), mode='loss')
    record_property('fault', f'a batch of one image with feature maps of one pixel, {"SAR" if sar else "stock"} model')
    record_property('outcome', first_sentence(error.value))


@pytest.mark.parametrize('shape', [(1, 8), (1, 8, 1), (1, 8, 1, 1)])
def test_anchors__of_one_pixel_pull_it(shape, record_property):
    head = SemanticAnchorHead(5, 8)
    feature = torch.ones(shape, requires_grad=True)
    target = torch.full((1, *shape[2:]), 3)
    losses = head.loss(feature, target, lambda anchors: 20 * torch.eye(5) + 0 * anchors.sum())
    expected = (1 - head.semantic_anchors[3]).square().mean() * 0.1
    torch.testing.assert_close(losses['loss_pull'], expected)
    total_of(losses).backward()
    assert are_finite([feature.grad])
    record_property('fault', f'features of shape {shape}')
    record_property('outcome', f'pulled; loss_pull {losses["loss_pull"].item():.4f}')


def test_class__that_never_occurs_has_an_anchor_of_its_own(record_property):
    torch.manual_seed(0)
    centres, classifier, body = torch.randn(4, 8), nn.Linear(8, 5), nn.Linear(8, 8)
    head = SemanticAnchorHead(5, 8, momentum=0.9)
    optimizer = torch.optim.Adam([*body.parameters(), *classifier.parameters(), *head.parameters()], lr=0.02)
    for _ in range(300):
        target = torch.randint(4, (32,))  # never class 4
        feature = body(centres[target] + 0.3 * torch.randn(32, 8))
        losses = head.loss(feature, target, classifier)
        optimizer.zero_grad()
        (F.cross_entropy(classifier(feature), target) + total_of(losses)).backward()
        optimizer.step()
    pulled = torch.autograd.grad(
        head.loss(body(centres), torch.arange(4), classifier)['loss_pull'], list(head.parameters()), allow_unused=True
    )
    assert losses['anchor_gate'] == 1 and losses['anchor_acc'] == 1
    assert all(gradient is None for gradient in pulled)  # anchors lead, features follow
    assert head.semantic_anchors[4].any() and are_finite(head.buffers())
    assert classifier(head.semantic_anchors)[4].argmax() == 4
    assert (classifier(body(centres)).argmax(1) == torch.arange(4)).all()
    record_property('fault', 'a class that is absent from the whole data set')
    found = f'{losses["anchor_conf"].item():.2f}'
    record_property('outcome', f'trains; its anchor is classified right as the others are, with at least {found}')


@pytest.mark.parametrize('num_classes', [1])
def test_classes__only_one_is_refused_for_images(num_classes, record_property):
    pytest.importorskip('mmpretrain.models')
    with pytest.raises(ValueError, match='`num_classes` to be an integer of at least 2') as error:
        MODELS.build(dict(type='SARLinearClsHead', num_classes=num_classes, in_channels=8))
    record_property('fault', f'SARLinearClsHead with num_classes={num_classes}')
    record_property('outcome', first_sentence(error.value))


def test_classes__one_output_for_pixels_has_two_anchors(make_seg_samples, record_property):
    pytest.importorskip('mmseg.models')
    head = MODELS.build(
        dict(
            type='SARFCNHead',
            num_classes=1,
            in_channels=8,
            channels=8,
            num_convs=1,
            loss_decode=dict(type='mmseg.CrossEntropyLoss', use_sigmoid=True),
        )
    )
    feature = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    losses = head.loss([feature], make_seg_samples(2, 32, labels=(0, 1, 255)), {})
    total_of(losses).backward()
    assert len(head.anchor_head.semantic_anchors) == 2 and are_finite(losses.values())
    assert are_finite(parameter.grad for parameter in head.parameters())
    record_property('fault', 'SARFCNHead with num_classes=1, which mmseg trains as foreground and background')
    record_property('outcome', f'{len(head.anchor_head.semantic_anchors)} anchors, as for two classes; trains')


# ----- Counts


@pytest.mark.parametrize('name', ['LogitAdjustedLoss', 'LDAMLoss', 'ClassBalancedLoss'])
@pytest.mark.parametrize('counts', [[1000, 10, 0], [0, 0, 1], [10**9, 1, 1]])
def test_counts__of_zero_or_of_all_sizes_give_finite_losses(counts, name, record_property):
    loss = MODELS.build(dict(type=name, class_counts=counts))
    score = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = loss(score, torch.tensor([0, 1, 2, 0, 1, -100]))
    value.backward()
    assert are_finite([value, score.grad]) and value > 0
    record_property('fault', f'{name} with counts {counts}')
    record_property('outcome', f'loss {value.item():.2f}, finite')


@pytest.mark.parametrize('counts', [[0, 0, 0], [3, -1, 2], [3.0, float('nan'), 2.0], [3.0, float('inf'), 2.0], []])
def test_counts__that_are_none_are_named(counts, record_property):
    with pytest.raises(ValueError, match='argument `class_counts` to be one count per class') as error:
        MODELS.build(dict(type='LogitAdjustedLoss', class_counts=counts))
    record_property('fault', f'LogitAdjustedLoss with counts {counts}')
    record_property('outcome', first_sentence(error.value))


@pytest.mark.parametrize('counts', [None, [3, 4]])
def test_counts__that_are_missing_or_of_other_classes_are_named(counts, record_property):
    loss = MODELS.build(dict(type='LogitAdjustedLoss', class_counts=counts))
    with pytest.raises(ValueError, match='no class counts: add|one count for each of the 3 classes, but got') as error:
        loss(torch.zeros(2, 3), torch.tensor([0, 1]))
    record_property('fault', f'LogitAdjustedLoss with counts {counts} on a head of 3 classes')
    record_property('outcome', first_sentence(error.value))
