import pytest
import torch

from sar_mm.models.semi import DistributionAlignment, FixedThreshold, SelfAdaptiveThreshold
from sar_mm.models.semi.pseudo_labels import PseudoLabels

PROBABILITY = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.96, 0.02, 0.02]])
LABELS = torch.tensor([0, 0, 2, -1])


def test_pseudo_labels__counts_what_is_above_the_threshold():
    label, mask, log = PseudoLabels(3, 0.6, None)(PROBABILITY, LABELS)
    assert label.tolist() == [0, 1, 2, 0]
    assert mask.tolist() == [True, False, False, True]  # 0.6 is not above 0.6
    assert log['pseudo_threshold'] == pytest.approx(0.6)


def test_pseudo_labels__with_threshold_1_none_counts():
    _, mask, _ = PseudoLabels(2, 1, None)(torch.tensor([[1.0, 0.0]]), LABELS)
    assert not mask.any()


def test_pseudo_labels__of_pixels():
    maps = PROBABILITY.t()[None, :, :, None].repeat(2, 1, 1, 5)  # (2, 3, 4, 5)
    label, mask, _ = PseudoLabels(3, 0.65, None)(maps, LABELS)
    assert label[1, :, 4].tolist() == [0, 1, 2, 0]
    assert mask[0, :, 0].tolist() == [True, False, False, True]


def test_self_adaptive_threshold__first_step_by_hand():
    threshold = SelfAdaptiveThreshold(3, momentum=0.9)
    value = threshold(PROBABILITY)
    overall = 0.9 / 3 + 0.1 * (0.7 + 0.6 + 0.5 + 0.96) / 4
    per_class = [0.9 / 3 + 0.1 * mean / 4 for mean in (1.96, 1.12, 0.92)]
    expected = [overall * per_class[label] / per_class[0] for label in (0, 1, 2, 0)]
    assert value.tolist() == pytest.approx(expected)


def test_self_adaptive_threshold__rises_with_confidence_and_is_lower_for_rare_classes():
    threshold = SelfAdaptiveThreshold(3, momentum=0.5)
    confident = torch.tensor([[0.98, 0.01, 0.01]] * 9 + [[0.1, 0.8, 0.1]])
    for _ in range(30):
        value = threshold(confident)
    assert value[0] == pytest.approx(0.962, abs=1e-3)
    assert value[9] < 0.2


def test_distribution_alignment__uniform_by_hand():
    alignment = DistributionAlignment(3, momentum=0.0)
    aligned = alignment(PROBABILITY, LABELS)
    mean = PROBABILITY.mean(dim=0)
    expected = PROBABILITY / mean
    torch.testing.assert_close(aligned, expected / expected.sum(dim=1, keepdim=True))
    assert aligned[0, 0] < PROBABILITY[0, 0]  # class 0 is predicted too often


def test_distribution_alignment__to_the_labelled_classes():
    alignment = DistributionAlignment(3, momentum=0.5, target='labelled')
    alignment(PROBABILITY, LABELS)
    assert alignment.wanted.tolist() == pytest.approx([0.5 / 3 + 0.5 * 2 / 3, 0.5 / 3, 0.5 / 3 + 0.5 / 3])


def test_distribution_alignment__of_pixels_sums_to_one():
    alignment = DistributionAlignment(3, momentum=0.5)
    aligned = alignment(torch.rand(2, 3, 4, 5).softmax(dim=1), LABELS)
    torch.testing.assert_close(aligned.sum(dim=1), torch.ones(2, 4, 5))


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: FixedThreshold(3, 1.5), r'`semi.threshold` to be a number in \[0, 1\], but got 1.5'),
        (lambda: PseudoLabels(3, 'high', None), r'`semi.threshold` to be a number in \[0, 1\], but got .high'),
        (lambda: PseudoLabels(3, dict(momentum=0.9), None), r"`semi.threshold` to be a number, or a config .*'Self"),
        (lambda: SelfAdaptiveThreshold(3, 2), r'`threshold.momentum` to be .* but got 2'),
        (lambda: DistributionAlignment(3, target='flat'), r'`distribution_alignment.target` to be one of .*uniform'),
        (lambda: PseudoLabels(3, 0.9, dict(momentum=-1)), r'`distribution_alignment.momentum` to be .* but got -1'),
    ],
)
def test_pseudo_labels__bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()
