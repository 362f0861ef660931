import pytest
import torch

KINDS = ['cls', 'seg']


@pytest.mark.parametrize('kind', KINDS)
def test_forward__stacks_the_branches(kind, make_semi, make_items):
    model = make_semi(kind, semi={})
    items = make_items(kind, 2, 3, views=2)
    data = model.data_preprocessor(items, training=True)
    assert data['branches'] == dict(labeled=2, strong0=3, strong1=3, weak=3)
    assert data['inputs'].shape == (11, 3, 16, 16) and len(data['data_samples']) == 11
    expected = [items[0].labeled, items[2].strong0, items[2].strong1, items[2].weak]
    for index, packed in zip((0, 2, 5, 8), expected):
        torch.testing.assert_close(data['inputs'][index], packed['inputs'] / 127.5 - 1)


@pytest.mark.parametrize('kind', KINDS)
def test_forward__in_tests_is_that_of_the_student(kind, make_semi, make_items):
    model = make_semi(kind, semi={})
    packed = make_items(kind, 1, 0)[0].labeled
    batch = dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
    data = model.data_preprocessor(batch, training=False)
    assert data.keys() == {'inputs', 'data_samples'} and data['inputs'].shape == (1, 3, 16, 16)


def test_forward__an_ordinary_batch(make_semi, make_items):
    packed = make_items('cls', 1, 0)[0].labeled
    batch = dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
    with pytest.raises(ValueError, match='needs train_dataloader.dataset of type SemiSupervisedDataset'):
        make_semi('cls', semi={}).data_preprocessor(batch, training=True)


@pytest.mark.parametrize('labeled, unlabeled', [(0, 3), (3, 0)])
def test_forward__a_batch_of_one_kind(labeled, unlabeled, make_semi, make_items):
    items = make_items('cls', labeled, unlabeled)
    with pytest.raises(ValueError, match='use LabeledUnlabeledSampler, with a batch_size'):
        make_semi('cls', semi={}).data_preprocessor(items, training=True)


def test_forward__batches_cut_elsewhere_than_the_sampler_means(make_semi, make_items):
    preprocessor = make_semi('cls', semi={}).data_preprocessor
    preprocessor(make_items('cls', 2, 4), training=True)
    with pytest.raises(ValueError, match="holds .'labeled': 3.* the one before .'labeled': 2.*: batch_size of the"):
        preprocessor(make_items('cls', 3, 3), training=True)


def test_forward__another_size(make_semi, make_items):
    items = make_items('cls', 2, 0) + make_items('cls', 0, 2, size=8)
    with pytest.raises(ValueError, match=r"to be of one size, but got \{'labeled': \(3, 16, 16\), 'strong0': \(3, 8"):
        make_semi('cls', semi={}).data_preprocessor(items, training=True)


def test_forward__pixels_moved_in_one_view_only(make_semi, make_items):
    items = make_items('seg')
    items[-1].strong0['data_samples'].set_metainfo(dict(flip=True))
    with pytest.raises(ValueError, match='flip of an image is False in its weak and True in its strong0 view'):
        make_semi('seg', semi={}).data_preprocessor(items, training=True)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (dict(batch_augments=dict(augments=dict(type='Mixup', alpha=0.8))), 'batch_augments` to be None'),
        (dict(to_onehot=True), 'to_onehot` to be False'),
    ],
)
def test_init__what_pseudo_labels_do_not_go_with(option, message, make_semi):
    from mmengine.registry import MODELS, DefaultScope

    preprocessor = dict(num_classes=3, **option)
    classifier = dict(
        type='ImageClassifier', backbone=dict(type='CIFARResNet', depth=8), data_preprocessor=preprocessor
    )
    head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    make_semi('cls')  # skips where mmpretrain is missing
    with DefaultScope.overwrite_default_scope('mmpretrain'), pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='SemiClassifier', classifier=dict(classifier, head=head)))
