from abc import abstractmethod
from contextlib import ExitStack, nullcontext
from inspect import signature
from typing import Any, ContextManager, Dict, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn

from ...checks import check_choice, check_config, check_flag, check_integer, check_weight
from ...registry import MODELS
from .cutmix import Paste, paste
from .data_preprocessor import SemiDataPreprocessor
from .pseudo_labels import PseudoLabels
from .task_losses import Part, keep_running_stats, one_anchor_step, split_losses
from .teacher import evaluating, labeling, start_as_the_student
from .view import View

PARTS = ('student', 'teacher')


class SemiModel(BaseModel):
    """Base of :class:`SemiSegmentor` and :class:`SemiClassifier`: training with pseudo-labels of weak views.

    The student is the model of the config, unchanged, with its weights under ``student.``; a checkpoint of that model
    alone loads into it.

    Args:
        student: Config of the model.
        data_preprocessor: That of the student, for configs that have it beside the model.
        teacher: Config of a moving average of the student, by default a :class:`MeanTeacher`, that makes the
            pseudo-labels in evaluation mode. None: the student makes them, with batch normalisation by the statistics
            of its training batch, as published.
        threshold: A pseudo-label counts if its probability is at least this number in [0, 1]; or the config of a
            :class:`SelfAdaptiveThreshold`.
        distribution_alignment: Options of :class:`DistributionAlignment`. None: there is none.
        sup_weight: Weight of the task losses of labeled images.
        unsup_weight: Weight of the loss on unlabeled images.
        warmup_iters: Steps of the run in which that weight rises from 0, linearly.
        joint_forward: Put labeled images, strong views and, without a teacher, weak views through the student in one
            batch. False: strong views come in a second batch, with batch statistics of their own, as in UniMatch; with
            a teacher, the running statistics leave them out.
        predict_on: Which part predicts in tests, ``'student'`` or ``'teacher'``. None: the teacher if there is one.

    Raises:
        ValueError: An argument out of its range.
    """

    same_geometry: bool  # whether labels belong to pixels
    student: Any  # a segmentor or classifier
    teacher: Any  # an averaged model of it, or None

    def __init__(
        self,
        student: dict,
        data_preprocessor: Optional[dict] = None,
        teacher: Optional[dict] = None,
        threshold: Union[float, dict] = 0.95,
        distribution_alignment: Optional[dict] = None,
        sup_weight: float = 1.0,
        unsup_weight: float = 1.0,
        warmup_iters: int = 0,
        joint_forward: bool = True,
        predict_on: Optional[str] = None,
    ) -> None:
        check_weight('semi.sup_weight', sup_weight)
        check_weight('semi.unsup_weight', unsup_weight)
        check_integer('semi.warmup_iters', warmup_iters, minimum=0)
        check_flag('semi.joint_forward', joint_forward)
        if teacher is not None:
            check_config('semi.teacher', teacher, 'dict(momentum=0.001)')
        if distribution_alignment is not None:
            check_config('semi.distribution_alignment', distribution_alignment, 'dict(momentum=0.001)')
        parts = PARTS[:1] if teacher is None else PARTS
        if predict_on is not None:
            check_choice('semi.predict_on', predict_on, parts)
        if student.get('data_preprocessor') is None:
            student = {**student, 'data_preprocessor': data_preprocessor}
        model = MMENGINE_MODELS.build(student)
        super().__init__(SemiDataPreprocessor(model.data_preprocessor, self.same_geometry))
        self.student = model
        self.pseudo_labels = PseudoLabels(self.count_classes(), threshold, distribution_alignment)
        self.teacher = None
        if teacher is not None:
            self.teacher = MODELS.build({'type': 'MeanTeacher', **teacher, 'model': model})
        self.sup_weight = sup_weight
        self.unsup_weight = unsup_weight
        self.warmup_iters = warmup_iters
        self.joint_forward = joint_forward
        self.predict_on = predict_on or parts[-1]
        self._register_load_state_dict_pre_hook(self._prepare_loading)

    @abstractmethod
    def count_classes(self) -> int:
        """Return K of the student; a TypeError if it cannot be trained like this."""

    @abstractmethod
    def predict_probability(self, model: Any, images: Tensor) -> Tensor:
        """Return the probabilities (N, K, ...) that the student or teacher gives to images, in float32."""

    @abstractmethod
    def true_labels(self, samples: List) -> Optional[Tensor]:
        """Return the labels (N,) or (N, H, W) of data samples, of which -1 stands for none; None if there are none."""

    @abstractmethod
    def label_samples(self, view: View) -> List:
        """Return data samples with the labels of a view."""

    def inside(self, label: Tensor, samples: List) -> Tensor:
        """Return what is no padding, a boolean of the shape of labels."""
        return torch.ones_like(label, dtype=torch.bool)

    def draw_pastes(self, images: Tensor) -> List[Paste]:
        """Draw the boxes to paste from one image of a strong view into another."""
        return []

    perturbs_features = False  # whether weak views go through the student, too, with features perturbed

    def perturbing(self, start: int) -> ContextManager:
        """Perturb the features of the images from ``start`` on, the weak views, while the context lasts."""
        return nullcontext()

    @property
    def predicting_part(self) -> nn.Module:
        """The model that predicts."""
        return self.student if self.predict_on == 'student' else self.teacher.module

    def train(self, mode: bool = True) -> 'SemiModel':
        """Set the mode of the student; a teacher stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(
        self,
        inputs: Any,
        data_samples: Any = None,
        mode: str = 'tensor',
        branches: Optional[Dict[str, int]] = None,
    ) -> Any:
        """Return the losses (``mode='loss'``), or else what the part that predicts returns."""
        if mode == 'loss':
            return self.loss(inputs, data_samples, branches)
        return self.predicting_part(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: List, branches: Dict[str, int]) -> Dict[str, Tensor]:
        """Return the losses of a step.

        Args:
            inputs: (N, C, H, W), labeled images, strong views, weak views.
            data_samples: One per image.
            branches: Number of images by the name of the branch, in this order.

        Returns:
            The student's losses of the labeled images, except that semantic anchors pull the features of all;
            ``loss_unsup``; and for the log ``pseudo_ratio`` (share of pseudo-labels that count), ``pseudo_threshold``
            (the mean one) and, where labels are known, ``pseudo_acc`` (share of those that count that are right; 0 if
            none counts).
        """
        images = dict(zip(branches, inputs.split(list(branches.values()))))
        each = iter(data_samples)
        samples = {name: [next(each) for _ in range(size)] for name, size in branches.items()}
        strong = [name for name in branches if name.startswith('strong')]
        weak_views = ['weak'] if self.teacher is None or self.perturbs_features else []
        # Weak views come last in their batch, where features may be perturbed.
        batches = [['labeled', *strong, *weak_views]] if self.joint_forward else [['labeled', *weak_views], strong]
        with torch.no_grad():
            pastes = {name: self.draw_pastes(images[name]) for name in strong}
            for name in strong:
                images[name] = paste(images[name], pastes[name])
            views, log = self._label(images, samples, batches[0], pastes)
        losses, unsup = self._task_losses(images['labeled'], samples['labeled'], views, batches)
        losses.update(loss_unsup=self.unsup_weight * self._warmup() * unsup, **log)
        return losses

    def _label(
        self, images: Dict[str, Tensor], samples: Dict[str, List], batch: List[str], pastes: Dict[str, List[Paste]]
    ) -> Tuple[Dict[str, View], Dict[str, Tensor]]:
        """Return the unlabeled views with their labels, and what to log of these."""
        number, weak = len(images['weak']), samples['weak']
        needs_more = self.teacher is None and any(pastes.values())
        if self.teacher is not None:
            # At the start of a step: a model does not see the optimizer's step at its end.
            self.teacher.update_parameters(self.student)
            probability = self.predict_probability(self.teacher.module, images['weak'])
        else:
            with labeling(self.student):
                probability = self.predict_probability(self.student, torch.cat([images[name] for name in batch]))
            probability = probability[-number:]
            if needs_more:  # what is pasted is labeled in evaluation mode, as in UniMatch
                with evaluating(self.student):
                    probability = torch.cat([probability, self.predict_probability(self.student, images['weak'])])
            # Autocast caches the weights that it has cast, here without the graph that training needs.
            torch.clear_autocast_cache()
        inside = self.inside(probability[:number, 0], weak)
        counted = torch.cat([inside, torch.zeros_like(inside)]) if needs_more else inside
        label, mask, log = self.pseudo_labels(probability, self.true_labels(samples['labeled']), counted)
        label, other_label = label[:number], label[-number:]
        mask, other_mask = mask[:number] & inside, mask[-number:] & inside
        log.update(pseudo_ratio=mask.float().mean(), **self._accuracy(label, mask, self.true_labels(weak)))
        views = {
            name: View(
                images[name],
                paste(label, pastes[name], other_label),
                paste(mask, pastes[name], other_mask),
                paste(inside, pastes[name]),
                samples[name],
            )
            for name in pastes
        }
        # Weak views that are only there to be labeled are not learnt from.
        taught = mask if self.perturbs_features else torch.zeros_like(mask)
        views['weak'] = View(images['weak'], label, taught, inside, weak)
        return views, log

    def _task_losses(
        self, images: Tensor, samples: List, views: Dict[str, View], batches: List[List[str]]
    ) -> Tuple[Dict[str, Tensor], Tensor]:
        """Return the student's losses of labeled images, and the loss of unlabeled ones: the mean of both kinds."""
        passes = []
        unsup: Dict[str, List[Tensor]] = {name: [] for name in views}
        given_to_anchors: Dict[nn.Module, tuple] = {}
        for batch in batches:
            is_first, is_last = batch is batches[0], batch is batches[-1]
            names = [name for name in batch if name != 'labeled']
            inputs = [views[name].images for name in names]
            data_samples = [sample for name in names for sample in self.label_samples(views[name])]
            if is_first:
                inputs, data_samples = [images, *inputs], [*samples, *data_samples]
            parts = [
                Part(len(images) if is_first else 0, factor=self.sup_weight),
                *(views[name].part for name in names),
            ]
            with ExitStack() as contexts:
                if batch[-1] == 'weak':
                    contexts.enter_context(self.perturbing(start=sum(map(len, inputs[:-1]))))
                if not is_first and self.teacher is not None:
                    contexts.enter_context(keep_running_stats(self.student))
                if len(batches) > 1:
                    contexts.enter_context(one_anchor_step(self.student, given_to_anchors, is_last))
                collected = contexts.enter_context(split_losses(self.student, parts))
                passes.append(self.student.loss(torch.cat(inputs), data_samples))
            for name, values in zip(names, collected):
                unsup[name] += values
        # In the order of a single pass: those of the anchors are in the last one only.
        losses = {name: passes[0].get(name, value) for name, value in passes[-1].items()}
        strong = [sum(unsup[name]) for name in views if name != 'weak']
        if not all(isinstance(value, Tensor) for value in strong):
            raise RuntimeError(f'{type(self.student).__name__} called no loss of its heads')
        kinds = [sum(strong) / len(strong)]
        if self.perturbs_features:
            kinds.append(sum(unsup['weak']))
        unsup_loss: Any = sum(kinds) / len(kinds)
        return losses, unsup_loss

    def _warmup(self) -> float:
        """Return the share of ``unsup_weight`` in this step of the run, whatever checkpoint was loaded."""
        if not self.warmup_iters:
            return 1.0
        hub = MessageHub.get_current_instance()
        if 'iter' not in hub.runtime_info:
            raise RuntimeError(
                'semi.warmup_iters counts the steps of a Runner with its RuntimeInfoHook, but there is none: set them '
                "by MessageHub.get_current_instance().update_info('iter', step)"
            )
        return min(hub.get_info('iter') / self.warmup_iters, 1.0)

    def _prepare_loading(self, state_dict: Dict[str, Any], prefix: str, *args) -> None:
        """Make a checkpoint of the student's model alone one of student and teacher."""
        own = [name for name in state_dict if name.startswith(prefix)]
        if own and not any(name.startswith(f'{prefix}student.') for name in own):
            for name in own:
                value = state_dict.pop(name)
                state_dict[f'{prefix}student.{name[len(prefix) :]}'] = value
        state_dict.pop(f'{prefix}steps', None)  # of checkpoints of 0.1.0
        if own and self.teacher is not None:
            start_as_the_student(self.teacher, self.student, state_dict, prefix)

    @staticmethod
    def _accuracy(label: Tensor, mask: Tensor, truth: Optional[Tensor]) -> Dict[str, Tensor]:
        if truth is None:
            return {}
        counts = mask & (truth >= 0)
        return dict(pseudo_acc=(counts & (label == truth)).sum() / counts.sum().clamp(min=1))


def check_options(semi: Optional[dict], own: Sequence[str] = ()) -> dict:
    """Return the options in ``semi``; a ValueError for one that does not exist."""
    semi = {} if semi is None else semi
    check_config('semi', semi, 'dict(threshold=0.95)')
    valid = sorted({*signature(SemiModel).parameters, *own} - {'student', 'data_preprocessor'})
    for name in semi:
        check_choice(f'semi.{name}={semi[name]!r}', name, valid)
    return dict(semi)
