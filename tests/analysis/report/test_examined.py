import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, PixelData

from sar_mm.analysis.report.examined import MAX_SIDE, PredictionRecorder, Record, most_different, picture_of


def records_of(recorder, *batches):
    for batch in batches:
        recorder.process(None, batch)
    recorder.evaluate(sum(map(len, batches)))
    return recorder.records


def test_recorder__of_images():
    recorder = PredictionRecorder(3, 255)
    samples = [
        dict(gt_label=torch.tensor([2]), pred_score=torch.tensor([0.1, 0.6, 0.3])),
        dict(gt_label=torch.tensor([0]), pred_score=torch.tensor([0.7, 0.2, 0.1])),
    ]
    first, second, third = records_of(recorder, samples, [dict(gt_label=torch.tensor(1), pred_label=torch.tensor(1))])
    assert first == (2, 1, pytest.approx(0.6), pytest.approx(0.3))
    assert second == (0, 0, pytest.approx(0.7), pytest.approx(0.7))
    assert third[:2] == (1, 1) and third.score == 1.0
    assert recorder.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    assert recorder.of_class(is_iou=False) == [100.0, 100.0, 0.0]


def test_recorder__of_pixels():
    recorder = PredictionRecorder(3, 255)
    labels, predicted = torch.tensor([[0, 0, 1], [255, 1, 1]]), torch.tensor([[0, 1, 1], [2, 1, 0]])
    sample = dict(gt_sem_seg=dict(data=labels[None]), pred_sem_seg=dict(data=predicted[None]))
    (record,) = records_of(recorder, [sample])
    assert record.score == pytest.approx(3 / 5)  # the ignored pixel does not count
    assert record.label.tolist() == [[0, 0, 1], [-1, 1, 1]] and record.predicted.tolist() == predicted.tolist()
    assert recorder.confusion.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    found = recorder.of_class(is_iou=True)
    assert found[:2] == [pytest.approx(100 / 3), pytest.approx(50)] and np.isnan(found[2])


def test_recorder__keeps_small_maps_and_counts_all_pixels():
    labels = torch.zeros(1, 100, 400, dtype=torch.long)
    recorder = PredictionRecorder(2, 255)
    sample = dict(gt_sem_seg=PixelData(data=labels), pred_sem_seg=PixelData(data=labels))
    sample = {name: dict(data=value.data) for name, value in sample.items()}
    (record,) = records_of(recorder, [sample])
    assert record.label.shape == record.predicted.shape == (MAX_SIDE // 4, MAX_SIDE)
    assert recorder.confusion[0, 0] == 40_000


def test_most_different__half_of_each_direction():
    first = [Record(0, 0, 0.0, score) for score in (0.5, 0.5, 0.5, 0.5, 0.5, float('nan'))]
    second = [Record(0, 0, 0.0, score) for score in (0.6, 0.9, 0.1, 0.5, 0.4, 0.5)]
    assert most_different(first, second, 4) == [1, 0, 2, 4]
    assert most_different(first, second, 1) == [1]
    assert most_different(first, first, 4) == []


class Images:
    def __init__(self, inputs, **meta):
        self.item = dict(inputs=inputs, data_samples=BaseDataElement(metainfo=meta))

    def __getitem__(self, index):
        return self.item


def test_picture_of__is_in_rgb():
    blue_first = torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 2, 2)
    assert picture_of(Images(blue_first, img_path='1.png'), 0)[0, 0].tolist() == [30, 20, 10]
    assert picture_of(Images(blue_first), 0)[0, 0].tolist() == [10, 20, 30]  # of a data set in memory
    grey = torch.tensor([[[0.0, 1.0]]])
    assert picture_of(Images(grey), 0).tolist() == [[[0, 0, 0], [255, 255, 255]]]
