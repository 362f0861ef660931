import pytest

import sar_mm  # noqa: F401
from sar_mm.anchors import OrthogonalAnchors


@pytest.mark.parametrize(('num_classes', 'dim'), [(2, 2), (5, 5), (5, 8), (19, 64)])
@pytest.mark.parametrize('seed', [0, 7])
def test_orthogonal__rows_are_orthonormal(num_classes, dim, seed):
    rows = OrthogonalAnchors(seed=seed)(num_classes, dim).double().tolist()
    for i in range(num_classes):
        for j in range(num_classes):
            product = sum(a * b for a, b in zip(rows[i], rows[j]))
            assert product == pytest.approx(float(i == j), abs=1e-6)


@pytest.mark.parametrize(('num_classes', 'dim'), [(3, 2), (20, 19)])
def test_orthogonal__refuses_too_many_classes(num_classes, dim):
    with pytest.raises(ValueError, match=rf'`dim`.*\({num_classes}\).*but got {dim}'):
        OrthogonalAnchors(dim=dim)(num_classes, 64)
