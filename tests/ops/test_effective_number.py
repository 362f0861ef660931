import pytest
import torch

from sar_mm.ops import effective_number_weights


@pytest.mark.parametrize('beta', [0.0, 0.9, 0.999, 0.9999])
def test_effective_number_weights__equals_the_formula(beta):
    counts = [5000, 1000, 100, 50, 1]
    raw = [(1 - beta) / (1 - beta**count) for count in counts]
    expected = [len(counts) * value / sum(raw) for value in raw]
    weights = effective_number_weights(torch.tensor(counts), beta)
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)


def test_effective_number_weights__zero_beta_and_equal_counts_give_ones():
    assert effective_number_weights(torch.tensor([9, 3]), 0.0).tolist() == [1, 1]
    assert effective_number_weights(torch.tensor([7.0] * 4), 0.99).tolist() == pytest.approx([1] * 4)


def test_effective_number_weights__a_class_without_samples_counts_as_one():
    assert torch.equal(
        effective_number_weights(torch.tensor([0, 4]), 0.5), effective_number_weights(torch.tensor([1, 4]), 0.5)
    )


@pytest.mark.parametrize('beta', [-0.1, 1.0, 2])
def test_effective_number_weights__wrong_beta(beta):
    with pytest.raises(ValueError, match=r'`beta` to be a number in \[0, 1\), but got'):
        effective_number_weights(torch.tensor([1, 2]), beta)


def test_effective_number_weights__shares_are_no_counts():
    with pytest.raises(ValueError, match='`counts` to be one count per class.*multiply shares'):
        effective_number_weights(torch.tensor([0.9, 0.1]), 0.99)
