from collections import OrderedDict

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import LOOPS as ROOT_LOOPS
from mmengine.registry import MODEL_WRAPPERS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

import sar_mm  # noqa: F401
from sar_mm.engine.loops import TeacherStudentValLoop

STEPS = 4
STUDENT = [10.0, 40.0, 20.0, 30.0]
TEACHER = [15.0, 12.0, 35.0, 33.0]


class Numbers(BaseDataset):
    METAINFO = dict(classes=('a',))

    def load_data_list(self):
        return [dict(inputs=torch.tensor([float(number)])) for number in range(5)]


class Model(BaseModel):
    """After each step, its parts are as good as the lists say."""

    def __init__(self, has_teacher=True, with_losses=False):
        super().__init__()
        self.student = nn.Linear(1, 1)
        self.teacher = nn.Linear(1, 1) if has_teacher else None
        self.predict_on = 'teacher' if has_teacher else 'student'
        self.with_losses = with_losses
        self.register_buffer('steps', torch.tensor(0))

    def forward(self, inputs, mode='tensor', **kwargs):
        if mode == 'loss':
            self.steps += 1
            return dict(loss=self.student(torch.stack(inputs)).sum())
        assert not self.training and not torch.is_grad_enabled()
        score = dict(student=STUDENT, teacher=TEACHER)[self.predict_on][self.steps - 1]
        losses = (
            [BaseDataElement(loss=dict(loss_a=torch.tensor(score), b=torch.tensor(3.0)))] if self.with_losses else []
        )
        return [dict(score=score, number=number.item()) for number in inputs] + losses


class Score(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        assert sorted(result['number'] for result in results) == list(range(5))
        score = sum(result['score'] for result in results) / len(results)
        others = dict(table=[score, 'text'], name='text', nothing=None, array=torch.ones(2))
        return {**others, 'accuracy/top1': score, 'mIoU': score, 'loss': -score, 'score': -score}


class Recorder(Hook):
    def __init__(self):
        self.calls = []
        self.metrics = []

    def before_val(self, runner):
        self.calls.append('before_val')

    def before_val_epoch(self, runner):
        self.calls.append('before_val_epoch')

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        self.calls.append(f'before {batch_idx}')

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        assert all('score' in output for output in outputs)
        self.calls.append(f'after {batch_idx}')

    def after_val_epoch(self, runner, metrics=None):
        self.calls.append('after_val_epoch')
        self.metrics.append(metrics)

    def after_val(self, runner):
        self.calls.append('after_val')


@pytest.fixture
def make_runner(tmp_path, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())  # a Runner changes the scope of all tests
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # mmengine waits when a loader starts again

    made = []

    def make(model=None, by_epoch=False, val_cfg=None, **checkpoint):
        def loader():
            return dict(dataset=Numbers(), sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2)

        train = dict(max_epochs=STEPS) if by_epoch else dict(max_iters=STEPS, val_interval=1)
        made.append(len(made))
        runner = Runner(
            model=model or Model(),
            work_dir=str(tmp_path),
            train_dataloader=dict(loader(), batch_size=5),
            train_cfg=dict(by_epoch=by_epoch, **train),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            val_dataloader=loader(),
            val_cfg=val_cfg or dict(type='TeacherStudentValLoop'),
            val_evaluator=[Score()],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=by_epoch, interval=-1, **checkpoint)),
            experiment_name=f'{tmp_path.name}-{len(made)}',
        )
        runner.recorder = Recorder()
        runner.register_hook(runner.recorder)
        return runner

    return make


def best(folder):
    """The step that every best checkpoint is from, by the name of its metric."""
    found = {}
    for path in folder.glob('best_*.pth'):
        state = torch.load(path, weights_only=False)['state_dict']
        found[path.name.rsplit('_', 2)[0]] = int(state['steps'])
        assert path.stem.endswith(f'_{state["steps"]}')
    return found


def test_student_teacher_val_loop__is_registered_in_both_spellings():
    assert ROOT_LOOPS.get('TeacherStudentValLoop') is ROOT_LOOPS.get('sar_mm.TeacherStudentValLoop')
    assert ROOT_LOOPS.get('TeacherStudentValLoop') is TeacherStudentValLoop


@pytest.mark.parametrize('by_epoch', [False, True])
@pytest.mark.parametrize('metric', ['accuracy/top1', 'mIoU', 'loss'])
def test_student_teacher_val_loop__keeps_the_best_of_both_by_inferred_rules(make_runner, tmp_path, metric, by_epoch):
    runner = make_runner(by_epoch=by_epoch, save_best=[f'student/{metric}', f'teacher/{metric}'])
    runner.train()
    name = metric.replace('/', '_')
    assert best(tmp_path) == {f'best_student_{name}': 2, f'best_teacher_{name}': 3}
    assert [metrics[f'student/{metric}'] for metrics in runner.recorder.metrics] == pytest.approx(
        [-score if metric == 'loss' else score for score in STUDENT]
    )


@pytest.mark.parametrize(
    ('save_best', 'rule', 'step'),
    [
        ('teacher/accuracy/top1', None, 3),
        ('student/mIoU', None, 2),
        ('teacher/score', 'less', 3),
        ('teacher/score', 'greater', 2),
    ],
)
def test_student_teacher_val_loop__keeps_the_best_of_one(make_runner, tmp_path, save_best, rule, step):
    make_runner(save_best=save_best, rule=rule).train()
    assert best(tmp_path) == {f'best_{save_best.replace("/", "_")}': step}


def test_student_teacher_val_loop__hooks_meet_one_validation(make_runner):
    runner = make_runner()
    model = runner.model
    metrics = runner.val()
    iterations = [f'{when} {index}' for index in range(3) for when in ('before', 'after')]
    start, end = ['before_val', 'before_val_epoch'], ['after_val_epoch', 'after_val']
    assert runner.recorder.calls == [*start, *iterations, *iterations, *end]
    assert runner.recorder.metrics == [metrics]
    names = ['table', 'name', 'nothing', 'array', 'accuracy/top1', 'mIoU', 'loss', 'score']
    assert list(metrics) == [f'{part}/{name}' for part in ('student', 'teacher') for name in names]
    assert model.predict_on == 'teacher'


@pytest.mark.parametrize('predict_on', ['student', 'teacher'])
def test_student_teacher_val_loop__model_predicts_as_before_afterwards(make_runner, predict_on):
    runner = make_runner()
    runner.model.predict_on = predict_on
    metrics = runner.val()
    assert (metrics['student/mIoU'], metrics['teacher/mIoU']) == pytest.approx((STUDENT[-1], TEACHER[-1]))
    assert runner.model.predict_on == predict_on

    def fail(*args, **kwargs):
        raise RuntimeError('a broken image')

    runner.val_evaluator.process = fail
    with pytest.raises(RuntimeError, match='a broken image'):
        runner.val()
    assert runner.model.predict_on == predict_on


def test_student_teacher_val_loop__without_a_teacher(make_runner, tmp_path):
    runner = make_runner(Model(has_teacher=False), save_best='student/mIoU')
    runner.train()
    assert best(tmp_path) == {'best_student_mIoU': 2}
    assert all(name.startswith('student/') for metrics in runner.recorder.metrics for name in metrics)
    assert runner.recorder.calls.count('after 2') == STEPS


def test_student_teacher_val_loop__losses_of_each_part(make_runner):
    metrics = make_runner(Model(with_losses=True)).val()
    for part, scores in (('student', STUDENT), ('teacher', TEACHER)):
        found = [metrics[f'{part}/{name}'] for name in ('loss_a', 'b', 'val_loss')]
        assert found == pytest.approx([scores[-1], 3.0, scores[-1]])


def test_student_teacher_val_loop__equals_the_stock_loop(make_runner):
    both = make_runner(Model(with_losses=True)).val()
    for part in ('student', 'teacher'):
        model = Model(with_losses=True)
        model.predict_on = part
        stock = make_runner(model, val_cfg=dict(type='ValLoop')).val()
        assert torch.equal(both.pop(f'{part}/array'), stock.pop('array'))
        found = {name: value for name, value in both.items() if name.startswith(part)}
        assert found == {f'{part}/{name}': value for name, value in stock.items()}


def test_student_teacher_val_loop__finds_the_model_in_a_wrapper(make_runner, monkeypatch):
    class Wrapped(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module
            self.train_step, self.val_step = module.train_step, module.val_step

    monkeypatch.setitem(MODEL_WRAPPERS.module_dict, 'LoopTestWrapped', Wrapped)
    model = Model()
    metrics = make_runner(Wrapped(model)).val()
    assert metrics['student/mIoU'] == pytest.approx(STUDENT[-1])
    assert model.predict_on == 'teacher'


def test_student_teacher_val_loop__refuses_other_models(make_runner):
    class Stock(Model):
        def __init__(self):
            super().__init__()
            del self.predict_on

    runner = make_runner(Stock())
    with pytest.raises(TypeError, match='for SemiSegmentor and SemiClassifier.*but the model is a Stock'):
        runner.train()
    assert runner.model.steps == 0
