from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from sar_mm.analysis import FeatureStatistics, geometry
from sar_mm.engine.hooks.feature_tap import FeatureTapHook, find_classifier
from sar_mm.evaluation import FeatureGeometry
from sar_mm.registry import HOOKS


class Listener:
    def __init__(self):
        self.features, self.references = [], []

    def observe(self, feature):
        self.features.append(feature)

    def set_reference(self, classifier_weight, anchors):
        self.references.append((classifier_weight, anchors))


def make_runner(model, *metrics):
    evaluator = SimpleNamespace(metrics=list(metrics))
    return SimpleNamespace(model=model, val_evaluator=evaluator, test_evaluator=evaluator)


@torch.no_grad()
def predict(model, batch):
    model.eval()
    images, samples = batch
    return model(images, samples, mode='predict')


def layer_of(model, kind):
    head = model.head if hasattr(model, 'head') else model.decode_head
    if kind == 'cascade':
        return head[-1].conv_seg
    return {'seg': lambda: head.conv_seg, 'cls': lambda: head.fc}.get(kind, lambda: head.layers.head)()


@pytest.mark.parametrize('sar', [False, True], ids=['stock', 'sar'])
@pytest.mark.parametrize('kind', ['cls', 'vit', 'vit_hidden', 'seg', 'cascade'])
def test_feature_tap_hook__gives_what_the_classifier_classifies(make_model, make_batch, kind, sar):
    model, listener = make_model(kind, sar), Listener()
    layer = layer_of(model, kind)
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)  # mmpretrain's ViT head starts from zero
    outputs = []
    layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
    hook = HOOKS.build(dict(type='FeatureTapHook'))
    runner = make_runner(model, object(), listener)
    hook.before_test(runner)
    for step in range(2):
        predict(model, make_batch(kind, step))
    hook.after_test(runner)
    predict(model, make_batch(kind))
    assert len(listener.features) == 2 and len(listener.references) == 1 and len(outputs) == 3
    for feature, output in zip(listener.features, outputs):
        assert torch.equal(layer(feature), output)
        assert not feature.requires_grad
    weight, anchors = listener.references[0]
    assert torch.equal(weight, layer.weight.flatten(1)) and weight.data_ptr() != layer.weight.data_ptr()
    assert anchors is None  # none at all, or none set yet


@pytest.mark.parametrize('kind', ['cls', 'seg', 'cascade'])
def test_feature_tap_hook__gives_the_semantic_anchors(make_model, make_batch, kind):
    model, listener = make_model(kind, sar=True), Listener()
    head = model.head if kind == 'cls' else (model.decode_head if kind == 'seg' else model.decode_head[-1])
    head.anchor_head.semantic_anchors.normal_()
    hook = FeatureTapHook()
    hook.before_val(make_runner(model, listener))
    predict(model, make_batch(kind))
    assert torch.equal(listener.references[0][1], head.anchor_head.semantic_anchors)


def test_feature_tap_hook__predictions_do_not_change(make_model, make_batch):
    model = make_model('cls', sar=False)
    before = torch.stack([sample.pred_score for sample in predict(model, make_batch('cls'))])
    FeatureTapHook().before_test(make_runner(model, Listener()))
    tapped = torch.stack([sample.pred_score for sample in predict(model, make_batch('cls'))])
    assert torch.equal(before, tapped)


def test_feature_tap_hook__wrapped_models(make_model, make_batch):
    class TwoPasses(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    model, listener = make_model('cls', sar=False), Listener()
    wrapped = nn.parallel.DataParallel(TwoPasses(module=model))
    FeatureTapHook().before_test(make_runner(wrapped, listener))
    predict(model, make_batch('cls'))
    assert len(listener.features) == 1


def test_feature_tap_hook__reads_the_weight_at_the_first_forward_pass(make_model, make_batch):
    # EMAHook swaps the weights between before_val and the first iteration, by exchanging `.data`.
    model, listener = make_model('cls', sar=False), Listener()
    FeatureTapHook().before_val(make_runner(model, listener))
    model.head.fc.weight.data = torch.full_like(model.head.fc.weight, 3.0)
    predict(model, make_batch('cls'))
    assert (listener.references[0][0] == 3).all()


def test_feature_tap_hook__attaches_once_and_only_where_somebody_listens(make_model, make_batch):
    model, listener = make_model('cls', sar=False), Listener()
    hook = FeatureTapHook()
    hook.before_val(make_runner(nn.Identity(), object()))  # not even a classifier is needed
    hook.before_val(make_runner(model, listener))
    hook.before_val(make_runner(model, listener))  # as after a validation that an error ended
    predict(model, make_batch('cls'))
    assert len(listener.features) == 1
    hook.after_val(None)
    hook.after_val(None)


def test_feature_tap_hook__named_layer(make_model, make_batch):
    model, listener = make_model('seg', sar=True), Listener()
    hook = FeatureTapHook(layer='auxiliary_head.conv_seg')
    assert find_classifier(model, hook.layer)[1] is model.auxiliary_head.anchor_head
    hook.before_test(make_runner(model, listener))
    with torch.no_grad():
        model.eval().auxiliary_head(model.extract_feat(make_batch('seg')[0]))
    assert listener.features[0].shape[:2] == (2, 16)


def test_feature_tap_hook__one_output_becomes_two_rows():
    listener = Listener()
    head = nn.Module()
    head.fc = nn.Linear(3, 1)
    model = nn.Module()
    model.head = head
    FeatureTapHook().before_test(make_runner(model, listener))
    head.fc(torch.zeros(1, 3))
    weight = listener.references[0][0]
    assert torch.equal(weight[1] - weight[0], head.fc.weight[0])


def test_find_classifier__names_what_was_tried():
    with pytest.raises(ValueError, match=r'no classifier in Identity \(tried decode_head.classifier_layer, .*head.fc'):
        find_classifier(nn.Identity())
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="`layer` to be one of the layers of Sequential: 0, but got 'head.fc'"):
        find_classifier(model, 'head.fc')


@pytest.mark.parametrize('sar', [False, True], ids=['stock', 'sar'])
@pytest.mark.parametrize('kind', ['cls', 'seg'])
def test_feature_tap_hook__with_feature_geometry(make_model, make_batch, kind, sar):
    model = make_model(kind, sar)
    metric = FeatureGeometry()
    metric.dataset_meta = dict(classes=tuple('abcde'))
    hook, runner = FeatureTapHook(), make_runner(model, metric)
    hook.before_test(runner)
    for step in range(2):
        images, samples = make_batch(kind, step)
        predict(model, (images, samples))
        metric.process(None, [sample.to_dict() for sample in samples])
    hook.after_test(runner)
    numbers = metric.evaluate(2 * len(samples))
    assert numbers['geometry/classes_seen'] == 5 and numbers['geometry/within_scatter'] > 0
    assert 'geometry/nc3_self_duality' in numbers


class LabeledNoise(BaseDataset):
    """Images 8x8 of three classes."""

    METAINFO = dict(classes=('a', 'b', 'c'))

    def load_data_list(self):
        generator = torch.Generator().manual_seed(0)
        return [dict(image=torch.rand(3, 8, 8, generator=generator), gt_label=index % 3) for index in range(12)]

    def __getitem__(self, index):
        structures = pytest.importorskip('mmpretrain.structures')
        info = self.get_data_info(index)
        return dict(inputs=info['image'], data_samples=structures.DataSample().set_gt_label(info['gt_label']))


def noise_model(teacher):
    pytest.importorskip('mmpretrain.models')
    classifier = dict(
        type='ImageClassifier',
        backbone=dict(type='CIFARResNet', depth=8, base_channels=4),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='SARLinearClsHead', num_classes=3, in_channels=16, loss=dict(type='CrossEntropyLoss')),
    )
    torch.manual_seed(0)
    semi = dict(teacher=dict() if teacher else None)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(type='SemiClassifier', classifier=classifier, semi=semi))
    with torch.no_grad():  # the parts differ in features, weights and anchors
        for part in [model.student, model.teacher.module] if teacher else [model.student]:
            for parameter in part.parameters():
                parameter.normal_()
            part.head.anchor_head.semantic_anchors.normal_()
    return model.eval()


@torch.no_grad()
def noise_geometry(part):
    """The geometry of the noise in a classifier, from all its features at once."""
    data = LabeledNoise()
    images = torch.stack([data[index]['inputs'] for index in range(len(data))])
    statistics = FeatureStatistics(3, 16)
    statistics.update(part.extract_feat(images)[0], torch.arange(12) % 3)
    return geometry(statistics, part.head.fc.weight, part.head.anchor_head.semantic_anchors)


def noise_runner(model, folder, val_cfg, **options):
    def loader(batch_size):
        return dict(dataset=LabeledNoise(), sampler=dict(type='DefaultSampler', shuffle=False), batch_size=batch_size)

    return Runner(
        model=model,
        work_dir=str(folder),
        val_dataloader=loader(5),
        val_cfg=val_cfg,
        val_evaluator=[FeatureGeometry()],
        test_dataloader=loader(5),
        test_cfg=dict(),
        test_evaluator=[FeatureGeometry()],
        custom_hooks=[dict(type='FeatureTapHook'), *options.pop('custom_hooks', [])],
        default_hooks=dict(checkpoint=None, logger=None),
        experiment_name=folder.name,
        **options,
    )


def named(numbers, prefix):
    return pytest.approx({f'{prefix}geometry/{name}': value for name, value in numbers.items()}, rel=1e-4)


@pytest.mark.parametrize('teacher', [False, True], ids=['alone', 'teacher'])
def test_feature_tap_hook__every_part_that_is_validated(tmp_path, teacher):
    model = noise_model(teacher)
    runner = noise_runner(model, tmp_path, dict(type='sar_mm.TeacherStudentValLoop'))
    student = noise_geometry(model.student)
    for _ in range(2):  # nothing is left over from a validation
        found = runner.val()
        assert {key: found[key] for key in found if key.startswith('student/')} == named(student, 'student/')
        if teacher:
            expected = noise_geometry(model.teacher.module)
            assert abs(expected['within_scatter'] / student['within_scatter'] - 1) > 0.1
            assert {key: found[key] for key in found if key.startswith('teacher/')} == named(expected, 'teacher/')
        assert len(found) == (1 + teacher) * len(student)


@pytest.mark.parametrize('part', ['student', 'teacher'])
def test_feature_tap_hook__the_part_that_predicts(tmp_path, part):
    model = noise_model(teacher=True)
    model.predict_on = part
    runner = noise_runner(model, tmp_path, dict())
    expected = noise_geometry(model.student if part == 'student' else model.teacher.module)
    assert runner.val() == named(expected, '')
    assert runner.test() == named(expected, '')


@pytest.mark.parametrize('teacher', [False, True], ids=['alone', 'teacher'])
def test_feature_tap_hook__sees_the_averaged_weights_of_ema_hook(tmp_path, teacher):
    model = noise_model(teacher)
    runner = noise_runner(
        model,
        tmp_path,
        dict(type='sar_mm.TeacherStudentValLoop'),
        custom_hooks=[dict(type='EMAHook', begin_iter=0)],
    )
    averages = next(hook for hook in runner.hooks if type(hook).__name__ == 'EMAHook')
    averages.before_run(runner)
    parts = {'student/': averages.ema_model.module.student}
    if teacher:
        parts['teacher/'] = averages.ema_model.module.teacher.module
    with torch.no_grad():
        for part in parts.values():
            for parameter in part.parameters():
                parameter.normal_()
    expected = {prefix: noise_geometry(part.eval()) for prefix, part in parts.items()}
    assert abs(noise_geometry(model.student)['within_scatter'] / expected['student/']['within_scatter'] - 1) > 0.1
    # Not runner.val(): it would call before_run again, which makes the averages anew.
    found = runner.val_loop.run()
    for prefix, numbers in expected.items():
        assert {key: found[key] for key in found if key.startswith(prefix)} == named(numbers, prefix)
