from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check, check_integer, check_seed, check_weight, is_number
from ..models.feature_head import Classify, FeatureHead, Losses
from ..models.projector import AnchorLinear
from ..registry import MODELS
from .class_sums import image_classes


def supervised_contrastive_loss(embedding: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Return the mean over the rows that have another row of their class of their supervised contrastive loss.

    ``-1 / |P(i)| * sum over p in P(i) of log(exp(z_i z_p / t) / sum over a != i of exp(z_i z_a / t))``, P(i) being the
    other rows of the class of i: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, eq. 2.

    Args:
        embedding: z, (N, D), unit vectors.
        target: Class indices, (N,); rows below 0 take no part.
        temperature: t.

    Returns:
        A scalar; 0 where no row has another one of its class.
    """
    valid = target >= 0
    other = ~torch.eye(len(target), dtype=torch.bool, device=target.device) & valid[None]
    similarity = (embedding @ embedding.t() / temperature).masked_fill(~other, -torch.inf)
    # A row alone has nothing to be compared with: -inf everywhere, whose gradient would be NaN.
    similarity = similarity.masked_fill(~other.any(dim=1, keepdim=True), 0.0)
    log_probability = F.log_softmax(similarity, dim=1)
    positive = (target[:, None] == target[None]) & other & valid[:, None]
    number = positive.sum(dim=1)
    of_row = -log_probability.masked_fill(~positive, 0.0).sum(dim=1) / number.clamp(min=1)
    return of_row.sum() / (number > 0).sum().clamp(min=1)


@MODELS.register_module()
class SupervisedContrastiveHead(FeatureHead):
    """Supervised contrastive loss of the images of a batch, beside the task's loss.

    A projection of two linear layers embeds the features on the unit sphere; see :func:`supervised_contrastive_loss`.
    The paper shows each image twice; here the other images of a class in the batch of the process are its positives,
    and an image whose class has no other one is left out.

    Args:
        dim: D, the dimension of the embedding.
        temperature: Divisor of the cosines.
        weight: Weight of the loss.
        seed: Seed of the projection's weights.
        kwargs: ``num_classes``, ``channels`` and ``ignore_index``, see :class:`FeatureHead`.

    Raises:
        ValueError: Features or labels of pixels, or class probabilities, as mixup makes them.

    Example::

        head=dict(type='SARLinearClsHead', anchor_head=dict(type='SupervisedContrastiveHead', weight=0.5))
    """

    def __init__(
        self, *args, dim: int = 128, temperature: float = 0.1, weight: float = 1.0, seed: int = 1, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        check_integer('dim', dim, minimum=1)
        is_temperature = is_number(temperature) and 0 < temperature < float('inf')
        check(is_temperature, 'temperature', temperature, 'a finite number above 0')
        check_weight('weight', weight)
        check_seed(seed)
        self.temperature = temperature
        self.weight = weight
        generator = torch.Generator(device='cpu').manual_seed(seed)
        first = AnchorLinear(self.channels, self.channels, True, generator)
        self.projection = nn.Sequential(first, nn.ReLU(inplace=True), AnchorLinear(self.channels, dim, True, generator))

    def step(self, feature: Tensor, target: Tensor, classify: Classify, weight: Optional[Tensor]) -> Losses:
        target = image_classes(feature, target, self.num_classes, self.ignore_index, weight)
        embedding = F.normalize(self.projection(feature).float(), dim=1)
        loss = supervised_contrastive_loss(embedding, target, self.temperature)
        return dict(loss_contrast=self.weight * loss)
