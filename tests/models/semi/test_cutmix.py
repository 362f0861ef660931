import pytest
import torch

from sar_mm.models.semi.cutmix import AREA, ASPECT, draw_box, draw_pastes, paste


def cutmix(images, labels, mask, prob):
    pastes = draw_pastes(len(images), *images.shape[-2:], prob)
    return paste(images, pastes), paste(labels, pastes), paste(mask, pastes)


def test_cutmix__labels_and_masks_move_with_the_pixels(seed):
    seed(0)
    number, size = 6, 20
    # Every image, label and mask knows where each of its pixels comes from.
    labels = torch.arange(number).view(-1, 1, 1) * size * size + torch.arange(size * size).view(size, size)
    images = labels[:, None].float().repeat(1, 3, 1, 1)
    mask = labels % 7 == 0
    new_images, new_labels, new_mask = cutmix(images, labels, mask, prob=1.0)
    assert torch.equal(new_images, new_labels[:, None].float().repeat(1, 3, 1, 1))
    assert torch.equal(new_mask, new_labels % 7 == 0)
    assert torch.equal(new_labels % (size * size), labels % (size * size))  # a box stays at its place
    assert not torch.equal(new_labels, labels)
    assert torch.equal(images, labels[:, None].float().repeat(1, 3, 1, 1))  # the old ones are as they were


def test_cutmix__without_a_chance_nothing_moves():
    images = torch.randn(3, 3, 8, 8)
    labels = torch.randint(5, (3, 8, 8))
    new_images, new_labels, _ = cutmix(images, labels, labels > 2, prob=0.0)
    assert torch.equal(new_images, images)
    assert torch.equal(new_labels, labels)


@pytest.mark.parametrize('number', [2, 3, 8])
def test_cutmix__every_box_is_of_another_image(number, seed):
    seed(0)
    labels = torch.arange(number).view(-1, 1, 1).repeat(1, 16, 16)
    for _ in range(5):
        _, mixed, _ = cutmix(labels[:, None].float(), labels, labels >= 0, prob=1.0)
        assert (mixed != labels).flatten(1).any(dim=1).all()


def test_cutmix__of_one_image():
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(cutmix(images, images[:, 0] > 0, images[:, 0] > 0, prob=1.0)[0], images)


def test_draw_box__lies_inside_and_has_the_area(seed):
    seed(0)
    boxes = [draw_box(40, 60, prob=0.5) for _ in range(2000)]
    drawn = [box for box in boxes if box is not None]
    assert 0.45 < len(drawn) / len(boxes) < 0.55
    shares = []
    for rows, columns in drawn:
        assert 0 <= rows.start < rows.stop <= 40
        assert 0 <= columns.start < columns.stop <= 60
        shares.append((rows.stop - rows.start) * (columns.stop - columns.start) / 2400)
    assert max(shares) <= AREA[1]
    assert min(shares) > 0.5 * AREA[0]  # whole pixels
    assert max(shares) > 0.35


def test_paste__takes_the_boxes_of_another_source(seed):
    seed(0)
    values = torch.zeros(3, 8, 8)
    pastes = draw_pastes(3, 8, 8, 1.0)
    pasted = paste(values, pastes, values + 1)
    assert [int(each.sum()) for each in pasted] == [
        (each.box[0].stop - each.box[0].start) * (each.box[1].stop - each.box[1].start) for each in pastes
    ]


def test_draw_box__is_drawn_again_until_it_fits():
    """As UniMatch's obtain_cutmix_box: area once; shape and place until the box lies inside."""
    for seed in range(200):
        torch.manual_seed(seed)
        box = draw_box(40, 40, prob=1.0)
        torch.manual_seed(seed)
        _, size = torch.rand(2).tolist()
        size = (AREA[0] + size * (AREA[1] - AREA[0])) * 40 * 40
        while True:
            ratio, y, x = torch.rand(3).tolist()
            ratio = ASPECT[0] + ratio * (ASPECT[1] - ASPECT[0])
            width, height = int((size / ratio) ** 0.5 + 1e-9), int((size * ratio) ** 0.5 + 1e-9)
            x, y = int(x * 40), int(y * 40)
            if x + width <= 40 and y + height <= 40:
                break
        assert (box[0].start, box[0].stop, box[1].start, box[1].stop) == (y, y + height, x, x + width)


def test_draw_box__fits_into_a_long_image(seed):
    seed(0)
    for _ in range(200):
        rows, columns = draw_box(8, 400, prob=1.0)
        assert rows.stop <= 8 and columns.stop <= 400
