"""What holds of the pull whatever it is given; hypothesis draws the shapes, labels and sizes of the numbers."""

from types import SimpleNamespace
from unittest import mock

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import sar_mm  # noqa: F401
from sar_mm.ops import pull, pull_blocked, pull_loss

IGNORED = 255
always = settings(derandomize=True, deadline=None, max_examples=100, database=None)
seeds = st.integers(0, 2**32 - 1)
lengths = st.sampled_from([3, 2, 1, 4, 5, 6, 7, 0])
scales = st.sampled_from([0.0, 1e-30, 1e-12, 1e-3, 1.0, 1e3, 1e12, 1e18])


@st.composite
def batches(draw, scale=st.just(1.0), soft=st.booleans(), dtype=st.sampled_from([torch.float32, torch.float64])):
    """Features of any shape, with labels or mixtures, anchors, gates and weights."""
    num_classes, channels = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    size = draw(st.lists(lengths, max_size=2))
    places = (draw(lengths), *size)
    generator = torch.Generator().manual_seed(draw(seeds))
    feature = torch.randn((places[0], channels, *size), generator=generator, dtype=torch.float64) * draw(scale)
    if draw(st.booleans()):
        feature = feature.movedim(1, -1).contiguous().movedim(-1, 1)
    is_soft = draw(soft)
    if is_soft:
        target = torch.rand((places[0], num_classes, *size), generator=generator)
        target = target * (torch.rand(target.shape, generator=generator) < 0.6)
    else:
        labels = torch.tensor([*range(num_classes), *draw(st.lists(st.sampled_from([-7, IGNORED, 300]), max_size=3))])
        target = labels[torch.randint(len(labels), places, generator=generator)]
    options = dict(class_balanced=draw(st.booleans()))
    if draw(st.booleans()):
        options['gate'] = (torch.rand(num_classes, generator=generator) < 0.6).float()
    if draw(st.booleans()):
        options['weight'] = torch.rand(places, generator=generator) * (torch.rand(places, generator=generator) < 0.7)
    return SimpleNamespace(
        feature=feature.to(draw(dtype)),
        target=target,
        anchors=torch.randn(num_classes, channels, generator=generator),
        options=dict(options, ignore_index=IGNORED),
        is_soft=is_soft,
        generator=generator,
    )


def value_and_gradient(batch, **changes):
    found = {**vars(batch), **changes}
    feature = found['feature'].detach().requires_grad_()
    loss = pull_loss(feature, found['target'], found['anchors'], **found['options'])
    return loss.detach(), torch.autograd.grad(loss, feature)[0]


def rows_of(batch):
    """The batch as rows: features (P, C), mixtures (P, K), of which those of no class are 0, and weights (P,)."""
    num_classes, channels = batch.anchors.shape
    feature = batch.feature.movedim(1, -1).reshape(-1, channels)
    if batch.is_soft:
        mixture = batch.target.movedim(1, -1).reshape(-1, num_classes)
    else:
        label = batch.target.flatten()
        is_valid = (label >= 0) & (label < num_classes)
        mixture = F.one_hot(label * is_valid, num_classes) * is_valid[:, None]
    weight = batch.options.get('weight')
    return feature, mixture.double(), torch.ones(len(feature)) if weight is None else weight.flatten()


def naive_pull(batch):
    """The pull of a batch, row by row in float64, with a graph to its features."""
    num_classes, channels = batch.anchors.shape
    feature, mixture, weight = rows_of(batch)
    anchors, gate = batch.anchors.double(), batch.options.get('gate', torch.ones(num_classes))
    weight = weight.double() * (mixture.sum(1) > 0)
    if batch.options['class_balanced']:
        mass = [sum((weight * mixture[:, k]).tolist()) for k in range(num_classes)]
        share = torch.tensor([1 / each if each > 0 else 0.0 for each in mass], dtype=torch.float64)
        weight, total = weight * (mixture @ share), sum(each > 0 for each in mass)
    else:
        total = sum(weight.tolist())
    loss = batch.feature.double().sum() * 0
    for row, shares, w in zip(feature.double(), mixture, weight):
        if not any(share > 0 and not is_open for share, is_open in zip(shares.tolist(), gate.tolist())):
            loss = loss + w * (row - shares @ anchors).square().sum() / channels
    return loss / total if total else loss * 0


@always
@given(batches())
def test_pull_loss__equals_the_naive_formula_for_any_shape(batch):
    batch.feature.requires_grad_()
    expected = naive_pull(batch)
    (gradient,) = torch.autograd.grad(expected, batch.feature)
    found, found_gradient = value_and_gradient(batch)
    torch.testing.assert_close(found.double(), expected.detach(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found_gradient, gradient, rtol=1e-5, atol=1e-6)


@always
@given(batches(), st.integers(1, 40))
def test_pull_loss__is_alike_in_blocks_of_any_size_and_as_a_plain_formula(batch, size):
    expected = value_and_gradient(batch)
    with mock.patch.object(pull_blocked, '_block_size', lambda feature: size):
        blocked = value_and_gradient(batch)
    with mock.patch.object(pull, '_is_compiling', lambda: True):
        plain = value_and_gradient(batch)
    for found in (blocked, plain):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@always
@given(batches(scale=scales))
def test_pull_loss__is_finite_and_not_negative(batch):
    value, gradient = value_and_gradient(batch)
    assert value.isfinite() and value >= 0
    assert gradient.isfinite().all() and gradient.dtype == batch.feature.dtype


@always
@given(batches(scale=scales, soft=st.just(False)), scales)
def test_pull_loss__ignored_features_never_matter(batch, scale):
    value, gradient = value_and_gradient(batch)
    ignored = (batch.target < 0) | (batch.target >= len(batch.anchors))
    ignored = ignored.unsqueeze(1).expand_as(batch.feature)
    noise = torch.randn(batch.feature.shape, generator=batch.generator).to(batch.feature) * scale * 1e12
    feature = batch.feature.clone()  # in the same layout: the sums are then of the same order
    feature[ignored] = noise[ignored]
    other_value, other_gradient = value_and_gradient(batch, feature=feature)
    assert torch.equal(value, other_value) and torch.equal(gradient, other_gradient)
    assert not gradient[ignored].any()


@always
@given(batches(soft=st.just(False)), st.integers(1, 5))
def test_pull_loss__more_ignored_features_change_nothing(batch, more):
    value, gradient = value_and_gradient(batch)
    repeat = [more + 1] + [1] * (batch.feature.dim() - 1)
    options = dict(batch.options)
    if 'weight' in options:
        options['weight'] = options['weight'].repeat(repeat[:1] + repeat[2:])
    target = torch.cat([batch.target] + [torch.full_like(batch.target, IGNORED)] * more)
    found = value_and_gradient(batch, feature=batch.feature.repeat(repeat), target=target, options=options)
    torch.testing.assert_close(found[0], value)
    torch.testing.assert_close(found[1][: len(gradient)], gradient)
    assert not found[1][len(gradient) :].any()


@always
@given(batches())
def test_pull_loss__order_of_places_and_classes_does_not_matter(batch):
    value, gradient = value_and_gradient(batch)
    places = torch.randperm(len(batch.feature), generator=batch.generator)
    classes = torch.randperm(len(batch.anchors), generator=batch.generator)
    options = dict(batch.options)
    if 'gate' in options:
        options['gate'] = options['gate'][classes]
    if 'weight' in options:
        options['weight'] = options['weight'][places]
    if batch.is_soft:
        target = batch.target[:, classes]
    else:  # class k is now called classes.argsort()[k]
        is_valid = (batch.target >= 0) & (batch.target < len(classes))
        target = torch.where(is_valid, classes.argsort()[batch.target * is_valid], batch.target)
    found = value_and_gradient(
        batch, feature=batch.feature[places], target=target[places], anchors=batch.anchors[classes], options=options
    )
    torch.testing.assert_close(found, (value, gradient[places]), rtol=1e-5, atol=1e-6)


@always
@given(batches(), st.sampled_from([2.0**-20, 0.5, 2.0, 2.0**20]))
def test_pull_loss__grows_with_the_square_of_the_scale(batch, scale):
    value, gradient = value_and_gradient(batch)
    found = value_and_gradient(batch, feature=batch.feature * scale, anchors=batch.anchors * scale)
    torch.testing.assert_close(found[0], value * scale**2, rtol=1e-5, atol=0)
    torch.testing.assert_close(found[1], gradient * scale, rtol=1e-5, atol=0)


@always
@given(batches(soft=st.just(False)))
def test_pull_loss__of_unit_vectors_is_at_most_four_over_the_channels(batch):
    value, _ = value_and_gradient(batch, feature=F.normalize(batch.feature), anchors=F.normalize(batch.anchors))
    assert value * batch.feature.shape[1] <= 4 + 1e-5


@always
@given(batches(soft=st.just(False)))
def test_pull_loss__one_hot_mixtures_are_labels(batch):
    num_classes = len(batch.anchors)
    is_valid = (batch.target >= 0) & (batch.target < num_classes)
    mixture = F.one_hot(batch.target * is_valid, num_classes) * is_valid.unsqueeze(-1)
    found = value_and_gradient(batch, target=mixture.movedim(-1, 1).float())
    torch.testing.assert_close(found, value_and_gradient(batch), rtol=1e-5, atol=1e-6)


@always
@given(batches(), st.sampled_from([1e-40, 1e-30, 1e30]))
def test_pull_loss__weights_of_any_size_give_a_mean(batch, scale):
    weight = batch.options.get('weight', torch.ones(len(batch.feature), *batch.feature.shape[2:]))
    value, gradient = value_and_gradient(batch, options={**batch.options, 'weight': weight * scale})
    assert value.isfinite() and gradient.isfinite().all()
    if scale > 1e-35:  # below, float32 has few digits left
        torch.testing.assert_close((value, gradient), value_and_gradient(batch), rtol=1e-4, atol=1e-6)
