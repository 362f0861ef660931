"""What a test set shows of a model, and what is predicted of every image."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from ...ops import nearest_labels

MAX_SIDE = 192  # of the label maps that are kept, in pixels


class Record(NamedTuple):
    """An image: its label and what is predicted, a class or a map; ``score`` is the probability of the true class, or
    the share of right pixels."""

    label: Any
    predicted: Any
    probability: float
    score: float


class PredictionRecorder(BaseMetric):
    """Keeps the confusion matrix of a test, and of every image what is predicted; in one process.

    Label maps are kept at up to 192 pixels a side; the confusion matrix counts all pixels.

    Args:
        num_classes: K.
        ignore_index: Label of segmentation that is left out.

    Attributes:
        confusion: (K, K), images or pixels of class i that were predicted as class j.
        records: In the order of the images.
    """

    default_prefix = 'predictions'

    def __init__(self, num_classes: int, ignore_index: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
        self.records: List[Record] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take the predictions of a batch: samples with ``gt_label`` or ``gt_sem_seg``."""
        for sample in data_samples:
            self.results.append(self._of_pixels(sample) if 'gt_sem_seg' in sample else self._of_image(sample))

    def compute_metrics(self, results: List[Record]) -> Dict[str, float]:
        self.records = [Record(*each) for each in results]  # mmengine makes plain tuples of them
        return {}

    def of_class(self, is_iou: bool) -> List[float]:
        """Return the accuracy, or the IoU, of every class in percent; NaN for a class that does not occur."""
        right, of_label = self.confusion.diagonal(), self.confusion.sum(axis=1)
        number = of_label + self.confusion.sum(axis=0) - right if is_iou else of_label
        with np.errstate(invalid='ignore'):
            return (100 * right / number).tolist()

    def _of_image(self, sample: dict) -> Record:
        label = int(torch.as_tensor(sample['gt_label']).flatten()[0])
        scores = sample.get('pred_score')
        if scores is None:
            predicted = int(torch.as_tensor(sample['pred_label']).flatten()[0])
            probability, score = float('nan'), float(predicted == label)
        else:
            scores = torch.as_tensor(scores).float()
            predicted, probability, score = int(scores.argmax()), float(scores.max()), float(scores[label])
        self._count(torch.tensor([label]), torch.tensor([predicted]))
        return Record(label, predicted, probability, score)

    def _of_pixels(self, sample: dict) -> Record:
        labels = sample['gt_sem_seg']['data'].squeeze(0).cpu().long()
        predicted = sample['pred_sem_seg']['data'].squeeze(0).cpu().long()
        labels = labels.masked_fill((labels == self.ignore_index) | (labels >= self.num_classes), -1)
        valid = labels >= 0
        self._count(labels[valid], predicted[valid])
        right = (labels == predicted)[valid].float()
        score = float(right.mean()) if len(right) else float('nan')
        return Record(_smaller(labels), _smaller(predicted), float('nan'), score)

    def _count(self, labels: Tensor, predicted: Tensor) -> None:
        index = labels * self.num_classes + predicted
        counts = index.bincount(minlength=self.num_classes**2)
        self.confusion += counts.reshape(self.num_classes, -1).numpy()


class Examined(NamedTuple):
    """What the test set showed of a model; the last two, where predictions were recorded."""

    classes: Tuple[str, ...]
    numbers: Dict[str, float]
    of_class: List[float]
    means: np.ndarray
    anchors: Optional[np.ndarray]
    features: np.ndarray
    labels: np.ndarray
    recorder: Optional[PredictionRecorder] = None
    dataset: Any = None


def most_different(first: Sequence[Record], second: Sequence[Record], number: int) -> List[int]:
    """Return the images whose scores differ most: half where the second is better, half where the first one is."""
    gain = np.array([b.score - a.score for a, b in zip(first, second)])
    order = [int(index) for index in np.argsort(-gain, kind='stable') if np.isfinite(gain[index])]
    better = [index for index in order if gain[index] > 0][: number - number // 2]
    worse = [index for index in reversed(order) if gain[index] < 0][: number // 2]
    return better + worse


def picture_of(dataset: Any, index: int) -> np.ndarray:
    """Return an image of a data set as the model gets it, before it is normalised: (H, W, 3) bytes, in RGB."""
    item = dataset[index]
    image = item['inputs'].float().movedim(0, -1).numpy()
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]
    if getattr(item['data_samples'], 'img_path', None) is not None:  # mmcv reads files as BGR
        image = image[..., ::-1]
    if image.min() < 0 or image.max() > 255 or image.max() <= 1:
        image = 255 * (image - image.min()) / max(float(np.ptp(image)), 1e-6)
    return image.astype(np.uint8)


def _smaller(labels: Tensor) -> np.ndarray:
    ratio = min(1.0, MAX_SIDE / max(labels.shape))
    size = [max(1, round(ratio * side)) for side in labels.shape]
    return nearest_labels(labels[None], size)[0].numpy().astype(np.int16)
