import math

import pytest
import torch

pytest.importorskip('mmpretrain.models')

from mmpretrain.structures import DataSample  # noqa: E402

from sar_mm.models.heads import with_semantic_anchors  # noqa: E402
from sar_mm.models.heads.normed_linear import NormedLinearClsHead  # noqa: E402
from sar_mm.registry import MODELS  # noqa: E402

SAMPLES = [DataSample().set_gt_label(label) for label in (0, 3, 2)]


def features():
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


def build(cls=NormedLinearClsHead, **options):
    torch.manual_seed(0)
    head = cls(num_classes=5, in_channels=4, **options)
    head.init_weights()
    return head


def cosines(feature, weight):
    return [
        [sum(a * b for a, b in zip(f, w)) / math.sqrt(sum(a * a for a in f) * sum(b * b for b in w)) for w in weight]
        for f in feature
    ]


@pytest.mark.parametrize('scale', [30.0, 1, 0.5])
def test_normed_linear__scores_are_scaled_cosines(scale):
    head = build(scale=scale)
    with torch.no_grad():
        head.fc.weight.mul_(torch.arange(1.0, 6.0)[:, None])
    expected = scale * torch.tensor(cosines(features().tolist(), head.fc.weight.tolist()))
    torch.testing.assert_close(head((features(),)), expected)
    torch.testing.assert_close(head((7 * features(),)), expected)


def test_normed_linear__loss_is_the_cross_entropy_of_the_scores():
    head = MODELS.build(dict(type='NormedLinearClsHead', num_classes=5, in_channels=4))
    total = 0.0
    for row, label in zip(cosines(features().tolist(), head.fc.weight.tolist()), (0, 3, 2)):
        total += math.log(sum(math.exp(30 * value) for value in row)) - 30 * row[label]
    assert head.loss((features(),), SAMPLES)['loss'].item() == pytest.approx(total / 3, rel=1e-5)


def test_normed_linear__weights_start_as_unit_vectors_without_bias():
    head = build()
    assert dict(head.named_parameters()).keys() == {'fc.weight'}
    torch.testing.assert_close(head.fc.weight.norm(dim=1), torch.ones(5))
    assert (head.fc.weight > 0).any() and (head.fc.weight < 0).any()


def test_normed_linear__zero_features_have_zero_scores():
    assert torch.equal(build()((torch.zeros(2, 4),)), torch.zeros(2, 5))


def test_normed_linear__with_semantic_anchors():
    head = build(with_semantic_anchors(NormedLinearClsHead), scale=10.0)
    losses = head.loss((features(),), SAMPLES)
    assert losses['loss'].item() == build(scale=10.0).loss((features(),), SAMPLES)['loss'].item()
    assert losses['loss_anchor'] > 0 and head.anchor_head.semantic_anchors.shape == (5, 4)


@pytest.mark.parametrize('scale', [0, -1.0, float('inf'), float('nan'), '30'])
def test_normed_linear__names_a_wrong_scale(scale):
    with pytest.raises(ValueError, match='`scale`.*above 0.*but got'):
        build(scale=scale)
