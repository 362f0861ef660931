"""Statistics of a classifier's input features by class, in one pass that keeps no feature."""

from typing import Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor

from ..checks import check, check_ignore_index, check_integer

# Rows that are converted to float64 at a time: the feature map of a large image is not copied whole.
_CHUNK = 16384


class FeatureStatistics:
    """Number, mean and scatter of the features of every class, in O(K * C) memory.

    Sums are in float64, and batches are merged by their means (Chan, Golub & LeVeque 1979), so that the scatter keeps
    its digits where all features have a large common offset.

    Args:
        num_classes: K.
        channels: C.
        ignore_index: A class index to leave out, besides those outside [0, K).

    Attributes:
        count: (K,), the features seen of each class.
        mean: (K, C), the class means; 0 for a class never seen.
        scatter: (K,), ``sum_i ||f_i - mean||^2`` over the features of the class.
        norm_sum: (K,), ``sum_i ||f_i||`` over the features of the class.

    Example::

        statistics = FeatureStatistics(num_classes=10, channels=64)
        for feature, target in batches:
            statistics.update(feature, target)
        print(geometry(statistics.reduce()))
    """

    def __init__(self, num_classes: int, channels: int, ignore_index: Optional[int] = None) -> None:
        check_integer('num_classes', num_classes, minimum=1)
        check_integer('channels', channels, minimum=1)
        check_ignore_index(ignore_index)
        self.ignore_index = ignore_index
        self.count = torch.zeros(num_classes, dtype=torch.float64)
        self.mean = torch.zeros(num_classes, channels, dtype=torch.float64)
        self.scatter = torch.zeros(num_classes, dtype=torch.float64)
        self.norm_sum = torch.zeros(num_classes, dtype=torch.float64)

    @property
    def num_classes(self) -> int:
        return self.mean.shape[0]

    @property
    def channels(self) -> int:
        return self.mean.shape[1]

    @torch.no_grad()
    def update(self, feature: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            feature: (N, C) or (N, C, H, W), of any floating dtype and device.
            target: Class indices, (N,) or (N, H, W); ``ignore_index`` and anything outside [0, K) is left out.

        Raises:
            ValueError: Shapes that do not belong together.
        """
        fits = feature.dim() >= 2 and feature.shape[1] == self.channels
        check(fits, 'feature', tuple(feature.shape), f'(N, C) or (N, C, H, W) with C = {self.channels}')
        rows, labels = labeled_rows(feature, target, self.num_classes, self.ignore_index)
        for name in ('count', 'mean', 'scatter', 'norm_sum'):
            setattr(self, name, getattr(self, name).to(rows.device))
        for chunk, chunk_labels in zip(rows.split(_CHUNK), labels.split(_CHUNK)):
            if len(chunk):
                self._merge(*_statistics_of(chunk.double(), chunk_labels))

    def reduce(self) -> 'FeatureStatistics':
        """Return the statistics of all processes together, the same in each; a collective, this object stays."""
        total = FeatureStatistics(self.num_classes, self.channels, self.ignore_index)
        total.count = self.count.clone()
        all_reduce(total.count)
        total.mean = self.mean * (self.count / total.count.clamp(min=1))[:, None]
        all_reduce(total.mean)
        # The scatter around the common mean.
        total.scatter = self.scatter + self.count * (self.mean - total.mean).square().sum(dim=1)
        all_reduce(total.scatter)
        total.norm_sum = self.norm_sum.clone()
        all_reduce(total.norm_sum)
        return total

    def _merge(self, classes: Tensor, count: Tensor, mean: Tensor, scatter: Tensor, norm_sum: Tensor) -> None:
        before = self.count[classes]
        total = before + count
        shift = mean - self.mean[classes]
        self.mean[classes] += shift * (count / total)[:, None]
        self.scatter[classes] += scatter + shift.square().sum(dim=1) * before * count / total
        self.norm_sum[classes] += norm_sum
        self.count[classes] = total


def labeled_rows(
    feature: Tensor, target: Tensor, num_classes: int, ignore_index: Optional[int] = None
) -> Tuple[Tensor, Tensor]:
    """Return the features that have a class, as rows (M, C), and their labels (M,)."""
    expected = (len(feature), *feature.shape[2:])
    check(tuple(target.shape) == expected, 'target', tuple(target.shape), f'class indices of shape {expected}')
    target = target.to(feature.device).long()  # uint8 labels compared with 300 or -100 would wrap around
    valid = (target >= 0) & (target < num_classes)
    if ignore_index is not None:
        valid = valid & (target != ignore_index)
    return feature.movedim(1, -1)[valid], target[valid]


def _statistics_of(rows: Tensor, labels: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the classes in ``labels``, and number, mean, scatter and sum of the norms of each."""
    classes, index, count = labels.unique(return_inverse=True, return_counts=True)
    count = count.double()
    mean = rows.new_zeros(len(classes), rows.shape[1]).index_add_(0, index, rows) / count[:, None]
    scatter = rows.new_zeros(len(classes)).index_add_(0, index, (rows - mean[index]).square().sum(dim=1))
    norm_sum = rows.new_zeros(len(classes)).index_add_(0, index, rows.norm(dim=1))
    return classes, count, mean, scatter, norm_sum


@torch.no_grad()
def geometry(
    statistics: FeatureStatistics, classifier_weight: Optional[Tensor] = None, anchors: Optional[Tensor] = None
) -> Dict[str, float]:
    """Return numbers that describe the feature space of a classifier.

    With ``n_k``, ``mu_k`` and ``var_k`` = ``mean ||f - mu_k||^2`` of the K' classes seen, ``N = sum n_k``, the mean of
    all features ``mu`` and the class means without their own mean ``M_k = mu_k - mean_j mu_j``:

    - ``classes_seen``: K'. Other classes are left out of all numbers; those that need two classes are NaN with one.
    - ``within_scatter`` = ``sum n_k var_k / N``, ``between_scatter`` = ``sum n_k ||mu_k - mu||^2 / N``, which add up to
      the mean scatter of all features; ``within_between_ratio`` is the first over the second.
    - ``cosine_max``, ``cosine_mean``: over the pairs of ``mu_k``; ``cosine_max_centred``, ``cosine_mean_centred``:
      over the pairs of ``M_k``.
    - ``norm_mean``, ``norm_cv``: mean and coefficient of variation, over the classes, of the mean norm of a feature.
    - ``nc1_cdnv``: variability collapse as the class-distance normalised variance, the mean over pairs of
      ``(var_i + var_j) / (2 ||mu_i - mu_j||^2)`` (Galanti, György & Hutter, "On the Role of Neural Collapse in Transfer
      Learning", ICLR 2022). The ``tr(Sigma_W Sigma_B^+) / K`` of Papyan et al. would need C x C covariances.
    - ``nc2_equinorm``: coefficient of variation of ``||M_k||``; ``nc2_equiangularity``: standard deviation of the
      pairwise cosines of ``M_k``; ``nc2_max_angle``: the mean of ``|cos + 1 / (K' - 1)|`` over them.
    - ``nc3_self_duality``, with a classifier weight: ``|| W/||W||_F - M/||M||_F ||_F``, the rows of W without their
      mean. NC2 and NC3 as in Papyan, Han & Donoho, "Prevalence of neural collapse during the terminal phase of deep
      learning training", PNAS 2020; all three are 0 in full collapse.
    - ``anchor_distance``, with anchors: the mean of ``||mu_k - S_k||`` over the classes; ``anchor_distance_relative``:
      the mean of ``||mu_k - S_k|| / ||S_k||``.

    Args:
        statistics: The features of all processes, see :meth:`FeatureStatistics.reduce`.
        classifier_weight: W, (K, C).
        anchors: S, (K, C); a row of zeros is an anchor that was never set, and left out.

    Returns:
        The numbers by name.

    Raises:
        ValueError: A weight or anchors of another shape.
    """
    seen = (statistics.count > 0).cpu()
    count, mean = statistics.count.cpu()[seen], statistics.mean.cpu()[seen]
    variance = statistics.scatter.cpu()[seen] / count
    norm = statistics.norm_sum.cpu()[seen] / count
    share = count / count.sum()
    within = (share * variance).sum()
    between = (share * (mean - share @ mean).square().sum(dim=1)).sum()
    centred = mean - mean.mean(dim=0)
    cosine, cosine_centred = _pairs(_cosines(mean)), _pairs(_cosines(centred))
    # Of centred means: the matrix product would lose the distances in a large common offset.
    squares = centred.square().sum(dim=1)
    distance = _pairs(squares[:, None] + squares - 2 * centred @ centred.t()).clamp(min=0)
    values = dict(
        classes_seen=seen.sum(),
        within_scatter=within,
        between_scatter=between,
        within_between_ratio=within / between,
        cosine_max=_largest(cosine),
        cosine_mean=cosine.mean(),
        cosine_max_centred=_largest(cosine_centred),
        cosine_mean_centred=cosine_centred.mean(),
        norm_mean=norm.mean(),
        norm_cv=_variation(norm),
        nc1_cdnv=(_pairs(variance[:, None] + variance) / (2 * distance)).mean(),
        nc2_equinorm=_variation(squares.sqrt()),
        nc2_equiangularity=_deviation(cosine_centred),
        nc2_max_angle=(cosine_centred + 1 / (len(mean) - 1)).abs().mean() if len(mean) > 1 else cosine_centred.mean(),
    )
    if classifier_weight is not None:
        weight = _rows_of('classifier_weight', classifier_weight, statistics)[seen]
        weight = weight - weight.mean(dim=0)
        values.update(nc3_self_duality=(weight / weight.norm() - centred / centred.norm()).norm())
    if anchors is not None:
        anchors = _rows_of('anchors', anchors, statistics)[seen]
        length = anchors.norm(dim=1)
        away = (mean - anchors).norm(dim=1)[length > 0]
        values.update(anchor_distance=away.mean(), anchor_distance_relative=(away / length[length > 0]).mean())
    return {name: value.item() for name, value in values.items()}


def _rows_of(name: str, rows: Tensor, statistics: FeatureStatistics) -> Tensor:
    check(rows.shape == statistics.mean.shape, name, tuple(rows.shape), f'of shape {tuple(statistics.mean.shape)}')
    return rows.detach().cpu().double()


def _cosines(rows: Tensor) -> Tensor:
    unit = F.normalize(rows, dim=1)
    return unit @ unit.t()


def _pairs(matrix: Tensor) -> Tensor:
    """Return the entries of a symmetric matrix above its diagonal."""
    return matrix[torch.ones_like(matrix, dtype=torch.bool).triu(diagonal=1)]


def _largest(values: Tensor) -> Tensor:
    return values.max() if len(values) else values.mean()  # the mean of nothing is NaN


def _variation(values: Tensor) -> Tensor:
    return _deviation(values) / values.mean()


def _deviation(values: Tensor) -> Tensor:
    return (values - values.mean()).square().mean().sqrt()  # Tensor.std() warns where there is nothing
