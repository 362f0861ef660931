import pytest
import torch

from sar_mm.models.semi import DistributionAlignment, FixedThreshold, SelfAdaptiveThreshold, pseudo_labels
from sar_mm.models.semi.pseudo_labels import PseudoLabels

PROBABILITY = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.96, 0.02, 0.02]])
LABELS = torch.tensor([0, 0, 2, -1])
ALL = torch.ones(4, dtype=torch.bool)


def test_pseudo_labels__counts_what_reaches_the_threshold():
    label, mask, log = PseudoLabels(3, 0.6, None)(PROBABILITY, LABELS, ALL)
    assert label.tolist() == [0, 1, 2, 0]
    assert mask.tolist() == [True, True, False, True]  # 0.6 counts
    assert log['pseudo_threshold'] == pytest.approx(0.6)


def test_pseudo_labels__of_pixels():
    maps = PROBABILITY.t()[None, :, :, None].repeat(2, 1, 1, 5)  # (2, 3, 4, 5)
    label, mask, _ = PseudoLabels(3, 0.65, None)(maps, LABELS, torch.ones(2, 4, 5, dtype=torch.bool))
    assert label[1, :, 4].tolist() == [0, 1, 2, 0]
    assert mask[0, :, 0].tolist() == [True, False, False, True]


def test_self_adaptive_threshold__first_step_by_hand():
    threshold = SelfAdaptiveThreshold(3, momentum=0.1)
    value = threshold(PROBABILITY, ALL)
    overall = 0.9 / 3 + 0.1 * (0.7 + 0.6 + 0.5 + 0.96) / 4
    per_class = [0.9 / 3 + 0.1 * mean / 4 for mean in (1.96, 1.12, 0.92)]
    expected = [overall * per_class[label] / per_class[0] for label in (0, 1, 2, 0)]
    assert value.tolist() == pytest.approx(expected)


def test_self_adaptive_threshold__rises_with_confidence_and_is_lower_for_rare_classes():
    threshold = SelfAdaptiveThreshold(3, momentum=0.5)
    confident = torch.tensor([[0.98, 0.01, 0.01]] * 9 + [[0.1, 0.8, 0.1]])
    for _ in range(30):
        value = threshold(confident, torch.ones(10, dtype=torch.bool))
    assert value[0] == pytest.approx(0.962, abs=1e-3)
    assert value[9] < 0.2


def test_distribution_alignment__uniform_by_hand():
    alignment = DistributionAlignment(3, momentum=1.0)
    aligned = alignment(PROBABILITY, LABELS, ALL)
    mean = PROBABILITY.mean(dim=0)
    expected = PROBABILITY / mean
    torch.testing.assert_close(aligned, expected / expected.sum(dim=1, keepdim=True))
    assert aligned[0, 0] < PROBABILITY[0, 0]  # class 0 is predicted too often


def test_distribution_alignment__to_the_labeled_classes():
    alignment = DistributionAlignment(3, momentum=0.5, target='labeled')
    alignment(PROBABILITY, LABELS, ALL)
    assert alignment.wanted.tolist() == pytest.approx([2 / 3, 0, 1 / 3])  # of the first batch
    alignment(PROBABILITY, torch.tensor([1, 1, -1]), ALL)
    assert alignment.wanted.tolist() == pytest.approx([1 / 3, 0.5, 1 / 6])


def test_distribution_alignment__a_class_that_the_first_batch_lacks_is_not_left_out_for_long():
    alignment = DistributionAlignment(3, momentum=0.001, target='labeled')
    batches = [[0, 0, 2], [0, 1, 2], [1, 1, 2], [0, 0, 0]]
    for number, labels in enumerate(batches, 1):
        alignment(PROBABILITY, torch.tensor(labels), ALL)
        counts = torch.bincount(torch.tensor(batches[:number]).flatten(), minlength=3)
        torch.testing.assert_close(alignment.wanted, counts / counts.sum())
    torch.testing.assert_close(alignment.predicted, PROBABILITY.mean(dim=0))
    alignment.batches.fill_(5000.0)
    before = alignment.wanted.clone()
    alignment(PROBABILITY, torch.tensor([1]), ALL)
    torch.testing.assert_close(alignment.wanted, 0.999 * before + 0.001 * torch.tensor([0.0, 1.0, 0.0]))


def test_distribution_alignment__averages_of_a_0_1_0_checkpoint_have_started():
    trained, alignment = (DistributionAlignment(3, momentum=0.1, target='labeled') for _ in range(2))
    trained(PROBABILITY, LABELS, ALL)
    state = trained.state_dict()
    del state['batches']
    alignment.load_state_dict(state)
    alignment(PROBABILITY[:1], torch.tensor([1]), ALL[:1])
    torch.testing.assert_close(alignment.predicted, 0.9 * PROBABILITY.mean(dim=0) + 0.1 * PROBABILITY[0])
    torch.testing.assert_close(alignment.wanted, torch.tensor([0.6, 0.1, 0.3]))


def test_distribution_alignment__starts_at_the_first_batch_and_moves_on():
    alignment = DistributionAlignment(3, momentum=0.1)
    assert alignment(PROBABILITY, LABELS, ALL).argmax(dim=1).tolist() == [0, 1, 2, 0]
    torch.testing.assert_close(alignment.predicted, PROBABILITY.mean(dim=0))
    alignment(PROBABILITY[:2], LABELS, ALL[:2])
    torch.testing.assert_close(alignment.predicted, 0.9 * PROBABILITY.mean(dim=0) + 0.1 * PROBABILITY[:2].mean(dim=0))


@pytest.mark.parametrize('target', ['uniform', 'labeled'])
def test_distribution_alignment__starts_at_the_first_batch_that_says_something(target):
    alignment = DistributionAlignment(3, momentum=0.1, target=target)
    alignment(torch.full((4, 3), float('nan')), LABELS, ALL)  # overflowed
    alignment(PROBABILITY, LABELS, ALL)
    torch.testing.assert_close(alignment.predicted, PROBABILITY.mean(dim=0))
    if target == 'labeled':
        torch.testing.assert_close(alignment.wanted, torch.tensor([2 / 3, 0, 1 / 3]))
        alignment = DistributionAlignment(3, momentum=0.1, target=target)
        alignment(PROBABILITY, torch.tensor([-1, 255]), ALL)  # nothing labeled
        alignment(PROBABILITY, LABELS, ALL)
        torch.testing.assert_close(alignment.wanted, torch.tensor([2 / 3, 0, 1 / 3]))


@pytest.mark.parametrize('make', [SelfAdaptiveThreshold, DistributionAlignment])
def test_averages__learn_nothing_of_padding(make):
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 3, 4, 4, generator=generator).softmax(dim=1)
    inside = torch.zeros(2, 4, 4, dtype=torch.bool)
    inside[:, :3, :2] = True
    labels = torch.tensor([0, 1, 1, -1, 255])
    one, other = make(3, momentum=0.5), make(3, momentum=0.5)
    labels = () if make is SelfAdaptiveThreshold else (labels,)
    cropped = maps[..., :3, :2]
    padded = maps.masked_fill(~inside[:, None], float('nan'))  # what is there changes nothing
    for _ in range(2):
        wanted = one(cropped, *labels, torch.ones(2, 3, 2, dtype=torch.bool))
        torch.testing.assert_close(other(padded, *labels, inside)[..., :3, :2], wanted)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


@pytest.mark.parametrize('make', [SelfAdaptiveThreshold, DistributionAlignment])
def test_averages__of_another_number_of_classes_start_anew_together(make):
    labels = () if make is SelfAdaptiveThreshold else (LABELS,)
    trained, other = make(3, momentum=0.5), make(5, momentum=0.5)
    trained(PROBABILITY, *labels, ALL)
    from mmengine.runner.checkpoint import load_state_dict

    load_state_dict(other, trained.state_dict(), strict=False)
    for name, value in make(5, momentum=0.5).state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    same = make(3, momentum=0.5)
    load_state_dict(same, trained.state_dict(), strict=False)
    for name, value in trained.state_dict().items():
        assert torch.equal(same.state_dict()[name], value), name


@pytest.mark.parametrize('make', [SelfAdaptiveThreshold, DistributionAlignment])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_averages__are_float32_whatever_the_model_is(dtype, make):
    labels = () if make is SelfAdaptiveThreshold else (LABELS,)
    reference, converted = make(3), make(3).to(dtype)
    torch.set_default_dtype(dtype)
    try:
        built = make(3)
    finally:
        torch.set_default_dtype(torch.float32)
    for step in range(3):
        probability = PROBABILITY.roll(step, dims=1)
        wanted = reference(probability, *labels, ALL)
        for each in (converted, built):
            assert torch.equal(each(probability, *labels, ALL), wanted)
    for name, value in reference.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(converted.state_dict()[name], value) and torch.equal(built.state_dict()[name], value)


@pytest.mark.parametrize('make', [SelfAdaptiveThreshold, DistributionAlignment])
def test_averages__a_momentum_of_the_other_convention_is_warned_of(make, monkeypatch):
    messages = []
    monkeypatch.setattr(pseudo_labels, 'print_log', lambda message, **kwargs: messages.append(message))
    make(3, momentum=0.001)
    assert not messages
    make(3, momentum=0.999)
    assert len(messages) == 1 and 'momentum=0.999 is the share of the new value' in messages[0]


def test_distribution_alignment__of_pixels_sums_to_one():
    alignment = DistributionAlignment(3, momentum=0.5)
    aligned = alignment(torch.rand(2, 3, 4, 5).softmax(dim=1), LABELS, torch.ones(2, 4, 5, dtype=torch.bool))
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
