import re
from typing import Any, List, Optional, Tuple

import torch
from mmpretrain.models.heads import ClsHead, MultiLabelClsHead
from mmpretrain.structures import DataSample
from torch import Tensor

from ...registry import MODELS
from .base import SemiModel, check_options
from .view import View


@MODELS.register_module()
class SemiClassifier(SemiModel):
    """Semi-supervised training of an image classifier of mmpretrain: FixMatch, with FreeMatch's and other options.

    Sohn et al., "FixMatch", NeurIPS 2020; with ``threshold=dict(type='SelfAdaptiveThreshold')``, Wang et al.,
    "FreeMatch", ICLR 2023. Semantic anchors pull labeled features by their labels and those of strong views by the
    pseudo-labels that count.

    Args:
        classifier: Config of a classifier, stock or with semantic anchors.
        semi: Options of :class:`SemiModel`.
        data_preprocessor: That of the classifier, where the config has it beside the model.

    Raises:
        TypeError: The classifier's head does not give one label to an image.
        ValueError: A bad option.

    Example::

        _base_ = './resnet18_digits.py'
        model = dict(
            _delete_=True,
            type='SemiClassifier',
            classifier=_base_.model,
            semi=dict(threshold=0.95, teacher=dict(momentum=0.01)))
    """

    same_geometry = False

    def __init__(self, classifier: dict, semi: Optional[dict] = None, data_preprocessor: Optional[dict] = None) -> None:
        super().__init__(classifier, data_preprocessor, **check_options(semi))

    def count_classes(self) -> int:
        head = getattr(self.student, 'head', None)
        if not isinstance(head, ClsHead) or isinstance(head, MultiLabelClsHead) or not hasattr(head, 'num_classes'):
            raise TypeError(
                f'SemiClassifier needs a classifier with a head that gives one label to an image, such as '
                f'LinearClsHead or SARLinearClsHead, but got a {type(head).__name__}'
            )
        return head.num_classes

    def predict_probability(self, model: Any, images: Tensor) -> Tensor:
        return torch.stack([sample.pred_score for sample in model.predict(images)]).float()

    def true_labels(self, samples: List[DataSample]) -> Optional[Tensor]:
        if not all('gt_label' in sample for sample in samples):
            return None
        return torch.cat([sample.gt_label for sample in samples])

    def get_layer_depth(self, param_name: str) -> Tuple[int, int]:
        """Return the depth of a parameter and the largest one, which mmpretrain's layer-wise decay asks for."""
        name = re.sub(r'^(student|teacher\.module)\.', '', param_name)
        return self.student.get_layer_depth(name)

    def label_samples(self, view: View) -> List[DataSample]:
        labeled = []
        for sample, label, weight in zip(view.samples, view.label, view.weight):
            sample = DataSample(metainfo=sample.metainfo)
            # set_gt_label() reads the value, and so waits for the GPU.
            sample.set_field(label.view(1), 'gt_label', dtype=torch.Tensor)
            sample.set_field(weight, 'sample_weight')
            labeled.append(sample)
        return labeled
