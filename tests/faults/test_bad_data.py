"""Files and labels that are not as they should be, read by the toolboxes' own pipelines and given to SAR models."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from outcomes import first_sentence
from PIL import Image

import sar_mm  # noqa: F401
from sar_mm.datasets.checked_loading import CheckedLoading
from sar_mm.ops import pull_loss

NUM_CLASSES, HEIGHT, WIDTH = 5, 48, 64
LOADERS = dict(
    mmseg=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')], mmpretrain=[dict(type='LoadImageFromFile')]
)
UNREADABLE = ['truncated.png', 'truncated.jpg', 'empty.png', 'text.png', 'missing.png']
KINDS = dict(seg='mmseg', cls='mmpretrain')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Images and label maps, good and bad."""
    folder = tmp_path_factory.mktemp('files')
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    labels = rng.integers(0, NUM_CLASSES, (HEIGHT, WIDTH), dtype=np.uint8)
    for name, array in dict(
        good=image,
        alpha=np.dstack([image, image[..., :1]]),
        grey=image[..., 0],
        labels=labels,
        out_of_range=np.where(labels == 4, 7, labels).astype(np.uint8),
        ignored=np.full_like(labels, 255),
        smaller=labels[::2, ::2],
        colours=np.dstack([labels] * 3),
        bits16=(labels + 256 * (labels == 2)).astype(np.uint16),
    ).items():
        Image.fromarray(np.ascontiguousarray(array)).save(folder / f'{name}.png')
    cv2.imwrite(str(folder / '16bit.png'), image[..., ::-1].astype(np.uint16) * 257)
    Image.fromarray(image).save(folder / 'good.jpg')
    for name in ('png', 'jpg'):
        whole = (folder / f'good.{name}').read_bytes()
        (folder / f'truncated.{name}').write_bytes(whole[: len(whole) // 2])
    whole = (folder / 'labels.png').read_bytes()
    (folder / 'truncated_labels.png').write_bytes(whole[: len(whole) // 2])
    (folder / 'empty.png').write_bytes(b'')
    (folder / 'text.png').write_text('no image')
    return folder


def load(folder, toolbox, image='good.png', labels='labels.png', label=1, is_checked=True, **options):
    """Load one image as the first steps of a pipeline do, and pack it."""
    pytest.importorskip(f'{toolbox}.datasets')
    results = dict(img_path=str(folder / image))
    if toolbox == 'mmseg':
        results.update(seg_map_path=str(folder / labels), reduce_zero_label=False, label_map=None, seg_fields=[])
    else:
        results.update(gt_label=label)
    loaders = [dict(LOADERS[toolbox][0], **options), *LOADERS[toolbox][1:]]
    with DefaultScope.overwrite_default_scope(toolbox):
        from mmengine.dataset import Compose

        if is_checked:
            results = CheckedLoading(loaders, NUM_CLASSES)(results)
            loaders = []
        return Compose([*loaders, dict(type='PackSegInputs' if toolbox == 'mmseg' else 'PackInputs')])(results)


def train(model, packed):
    """Make two steps on twice the same sample, and return the losses of the second."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    images = torch.stack([packed['inputs']] * 2).float() / 255
    for _ in range(2):
        losses = model(images, [packed['data_samples']] * 2, mode='loss')
        optimizer.zero_grad()
        sum(value.mean() for name, value in losses.items() if 'loss' in name).backward()
        optimizer.step()
    assert all(value.isfinite().all() for value in model.state_dict().values())
    return losses


# ----- Images


@pytest.mark.parametrize('name', ['good.png', 'good.jpg', 'alpha.png', 'grey.png', '16bit.png'])
@pytest.mark.parametrize('kind', KINDS)
def test_image__of_another_format_becomes_three_channels_of_8_bits(kind, name, folder, make_model, record_property):
    packed, good = (load(folder, KINDS[kind], image) for image in (name, 'good.png'))
    assert packed['inputs'].shape == (3, HEIGHT, WIDTH) and packed['inputs'].dtype == torch.uint8
    if name in ('alpha.png', '16bit.png'):
        assert torch.equal(packed['inputs'], good['inputs'])
    train(make_model(kind, sar=True), packed)
    record_property('fault', f'{KINDS[kind]}: image {name}')
    record_property('outcome', f'read as {packed["inputs"].dtype} {tuple(packed["inputs"].shape)}; trains')


@pytest.mark.parametrize('name, channels', [('alpha.png', 4), ('grey.png', 1)])
@pytest.mark.parametrize('kind', KINDS)
def test_image__of_other_channels_is_refused_by_the_backbone(kind, name, channels, folder, make_model, record_property):
    packed = load(folder, KINDS[kind], name, color_type='unchanged')
    with pytest.raises(RuntimeError, match=f'to have 3 channels, but got {channels} channels') as error:
        train(make_model(kind, sar=True), packed)
    record_property('fault', f"{KINDS[kind]}: image {name} with color_type='unchanged'")
    record_property('outcome', first_sentence(error.value))


@pytest.mark.parametrize('name', UNREADABLE)
@pytest.mark.parametrize('toolbox', LOADERS)
def test_image__that_cannot_be_read_is_named(toolbox, name, folder, record_property):
    with pytest.raises(ValueError, match=rf'^Cannot load image .*{name}.*replace the file') as error:
        load(folder, toolbox, name)
    record_property('fault', f'{toolbox}: image {name}, CheckedLoading')
    record_property('outcome', first_sentence(error.value, folder))


@pytest.mark.parametrize('name', UNREADABLE)
@pytest.mark.parametrize('toolbox', LOADERS)
def test_image__that_cannot_be_read_stops_the_stock_pipeline(toolbox, name, folder, record_property):
    with pytest.raises((AssertionError, OSError, cv2.error)) as error:
        load(folder, toolbox, name, is_checked=False)
    # OpenCV does not know the name of what it decodes; the assertion behind it does.
    assert (name in str(error.value)) == (name != 'empty.png')
    record_property('fault', f'{toolbox}: image {name}, stock pipeline')
    record_property('outcome', first_sentence(error.value, folder))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_image__with_nan_is_named(value, record_property):
    def give(results):
        image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.float32)
        image[3, 4] = value
        return dict(results, img=image)

    loading = CheckedLoading([give], NUM_CLASSES)
    with pytest.raises(ValueError, match="The image 'scan.npy' has NaN or infinite entries") as error:
        loading(dict(img_path='scan.npy'))
    record_property('fault', f'floating-point image with {value}, CheckedLoading')
    record_property('outcome', first_sentence(error.value))


@pytest.mark.parametrize('shape', [(0, WIDTH, 3), (HEIGHT, 0, 3)])
def test_image__without_pixels_is_named(shape, record_property):
    with pytest.raises(ValueError, match="The image 'crop.png' is empty") as error:
        CheckedLoading([lambda results: dict(results, img=np.zeros(shape))])(dict(img_path='crop.png'))
    record_property('fault', f'image of shape {shape}, CheckedLoading')
    record_property('outcome', first_sentence(error.value))


# ----- Label maps


@pytest.mark.parametrize(
    'name, complaint',
    [
        ('truncated_labels.png', 'Cannot load image .* or its label map .*truncated'),
        ('empty.png', 'Cannot load image .* or its label map'),
        ('missing.png', 'Cannot load image .* or its label map'),
        ('out_of_range.png', 'has labels that are no class: 7 .*0 to 4, and 255 is ignored'),
        ('smaller.png', r'is of shape \(24, 32\), where its image is of \(48, 64\)'),
        ('colours.png', r'is of shape \(48, 64, 3\), where its image is of \(48, 64\)'),
        ('bits16.png', 'has labels up to 258, and mmseg reads labels of 8 bits'),
    ],
)
def test_label_map__that_is_wrong_is_named(name, complaint, folder, record_property):
    with pytest.raises(ValueError, match=complaint) as error:
        load(folder, 'mmseg', labels=name)
    assert name in str(error.value)
    record_property('fault', f'label map {name}, CheckedLoading')
    record_property('outcome', first_sentence(error.value, folder))


@pytest.mark.parametrize(
    'name', ['truncated_labels.png', 'empty.png', 'missing.png', 'out_of_range.png', 'colours.png']
)
def test_label_map__that_is_wrong_stops_stock_training(name, folder, make_model, record_property):
    with pytest.raises((IndexError, OSError, RuntimeError, ValueError)) as error:
        train(make_model('seg', sar=True), load(folder, 'mmseg', labels=name, is_checked=False))
    record_property('fault', f'label map {name}, stock pipeline')
    record_property('outcome', first_sentence(error.value, folder))


@pytest.mark.parametrize('name', ['smaller.png', 'bits16.png'])
def test_label_map__that_is_wrong_and_goes_unnoticed_by_the_stock_pipeline(name, folder, make_model, record_property):
    packed, good = (load(folder, 'mmseg', labels=each, is_checked=False) for each in (name, 'labels.png'))
    found, expected = (each['data_samples'].gt_sem_seg.data for each in (packed, good))
    train(make_model('seg', sar=True), packed)
    if name == 'smaller.png':
        assert found.shape == (1, HEIGHT // 2, WIDTH // 2)
        outcome = f'labels of {tuple(found.shape[1:])} for an image of {(HEIGHT, WIDTH)} are stretched over it; trains'
    else:
        assert torch.equal(found, expected)
        outcome = f'label 258 is read as {expected[0][expected[0] == 2][0]}; trains'
    record_property('fault', f'label map {name}, stock pipeline')
    record_property('outcome', outcome)


def change_labels(samples, change):
    for sample in samples:
        sample.gt_sem_seg = PixelData(data=change(sample.gt_sem_seg.data))


@pytest.mark.parametrize('wrong', [-1, 5, 254, 1000])
@pytest.mark.parametrize('kind', KINDS)
def test_label__out_of_range_stops_the_task_loss(kind, wrong, make_model, make_batch, sar_heads, record_property):
    model = make_model(kind, sar=True)
    before = [head.anchor_head.semantic_anchors.clone() for head in sar_heads(model)]
    images, samples = make_batch(kind)
    if kind == 'seg':
        change_labels(samples, lambda data: data.where(data != 4, torch.tensor(wrong)))
    else:
        samples[3].set_gt_label(wrong)
    with pytest.raises(IndexError, match=f'Target {wrong} is out of bounds') as error:
        model(images, samples, mode='loss')
    assert all(torch.equal(head.anchor_head.semantic_anchors, old) for head, old in zip(sar_heads(model), before))
    record_property('fault', f'{KINDS[kind]}: label {wrong} of {NUM_CLASSES} classes, on a CPU, stock pipeline')
    record_property('outcome', first_sentence(error.value))


@pytest.mark.parametrize('wrong', [-1, 5, 255])
def test_image_label__out_of_range_is_named(wrong, folder, record_property):
    with pytest.raises(ValueError, match=f'good.png.* has labels that are no class: {wrong} .*0 to 4') as error:
        load(folder, 'mmpretrain', label=wrong)
    record_property('fault', f'mmpretrain: label {wrong} of {NUM_CLASSES} classes, CheckedLoading')
    record_property('outcome', first_sentence(error.value, folder))


@pytest.mark.parametrize('kind', KINDS)
def test_labels__all_ignored_pull_nothing(kind, make_model, make_batch, sar_heads, open_gate, record_property):
    model = make_model(kind, sar=True)
    for head in sar_heads(model):
        open_gate(head)
    images, samples = make_batch(kind)
    if kind == 'seg':
        change_labels(samples, lambda data: torch.full_like(data, 255))
    else:
        for sample in samples:
            sample.set_gt_label(-100)
    losses = model(images, samples, mode='loss')
    sum(value.mean() for name, value in losses.items() if 'loss' in name).backward()
    found = {name.split('.')[-1]: value.item() for name, value in losses.items() if 'aux' not in name}
    assert found['anchor_gate'] == 1 and found['loss_pull'] == 0 and found['loss_anchor'] > 0
    assert not any(parameter.grad.any() for parameter in model.backbone.parameters())
    head = sar_heads(model)[0]
    assert head.anchor_head.semantic_anchors.isfinite().all() and head.classifier_layer.weight.grad.any()
    record_property('fault', f'{KINDS[kind]}: all labels ignored')
    record_property('outcome', f'loss_pull {found["loss_pull"]}, no gradient in the backbone; the anchors learn on')


@pytest.mark.parametrize('labels', [(2,), (2, 255)])
def test_labels__of_one_class_only_pull_to_its_anchor(labels, make_model, make_seg_samples, open_gate, record_property):
    model = make_model('seg', sar=True)
    for head in (model.decode_head, model.auxiliary_head):
        open_gate(head)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    losses = model(images, make_seg_samples(labels=labels), mode='loss')
    sum(value.mean() for name, value in losses.items() if 'loss' in name).backward()
    assert losses['decode.loss_pull'] > 0 and losses['decode.anchor_gate'] == 1
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())
    record_property('fault', f'a batch with the labels {labels} only')
    record_property('outcome', f'trains; loss_pull {losses["decode.loss_pull"].item():.3f}')


@pytest.mark.parametrize(
    'fault, change',
    [
        ('an empty label map', lambda data: data[:, :0]),
        ('labels of dtype int32', lambda data: data.int()),
        ('labels of dtype float32', lambda data: data.float()),
        ('labels of dtype bool', lambda data: data > 2),
    ],
)
def test_labels__of_a_wrong_kind_stop_the_task_loss(fault, change, make_model, make_batch, record_property):
    images, samples = make_batch('seg')
    change_labels(samples, change)
    with pytest.raises(RuntimeError, match='dtype|Input and output sizes should be greater than 0') as error:
        make_model('seg', sar=True)(images, samples, mode='loss')
    record_property('fault', fault)
    record_property('outcome', first_sentence(error.value))


def test_labels__of_two_sizes_in_a_batch_stop_the_head(make_model, make_batch, record_property):
    images, samples = make_batch('seg')
    samples[0].gt_sem_seg = PixelData(data=samples[0].gt_sem_seg.data[:, :32])
    with pytest.raises(RuntimeError, match='stack expects each tensor to be equal size') as error:
        make_model('seg', sar=True)(images, samples, mode='loss')
    record_property('fault', 'label maps of two sizes in one batch')
    record_property('outcome', first_sentence(error.value))


def test_pull__names_labels_of_a_floating_dtype(record_property):
    with pytest.raises(ValueError, match='class indices are integers') as error:
        pull_loss(torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4), torch.zeros(5, 3))
    record_property('fault', 'class indices of a floating dtype, given to the pull')
    record_property('outcome', first_sentence(error.value))
