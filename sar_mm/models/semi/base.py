from abc import abstractmethod
from contextlib import contextmanager, nullcontext
from inspect import signature
from typing import Any, ContextManager, Dict, Iterator, List, NamedTuple, Optional, Union

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import Tensor, nn

from ...checks import check_choice, check_config, check_flag, check_integer, check_weight
from ...registry import MODELS
from ..anchor_head import two_passes
from .data_preprocessor import SemiDataPreprocessor
from .pseudo_labels import PseudoLabels
from .task_losses import keep_running_stats, split_losses
from .teacher import evaluating

PARTS = ('student', 'teacher')


class View(NamedTuple):
    """Unlabelled images as the student sees them, with what it should see in them."""

    images: Tensor  # (N, C, H, W)
    label: Tensor  # (N,) or (N, H, W)
    mask: Tensor  # which labels count, of the same shape
    samples: List  # data samples of the images

    @property
    def weight(self) -> Optional[Tensor]:
        """The mask as weights of the images, (N,); None where it is one of pixels, which are ignored by their label."""
        return self.mask.float() if self.mask.dim() == 1 else None


class SemiModel(BaseModel):
    """A student that learns from labelled images, and to see in strong views of others what it sees in weak ones.

    What segmentation and classification share; see :class:`SemiSegmentor` and :class:`SemiClassifier`. The student is
    the model of the config, unchanged, with its weights under ``student.``; a checkpoint of that model alone loads into
    it.

    Args:
        student: Config of the model.
        data_preprocessor: That of the student, for configs that have it beside the model.
        teacher: Config of a moving average of the student, by default a :class:`MeanTeacher`, which makes the
            pseudo-labels. None: the student itself makes them, in evaluation mode.
        threshold: A pseudo-label counts if its probability is above this number in [0, 1]; or the config of a
            :class:`SelfAdaptiveThreshold`.
        distribution_alignment: Options of :class:`DistributionAlignment`. None: there is none.
        unsup_weight: Weight of the loss on unlabelled images.
        warmup_iters: Training steps in which that weight rises from 0, linearly.
        joint_forward: Put labelled and unlabelled images through the student in one batch, of which batch normalisation
            takes its statistics. False: one after the other, with statistics of their own; the running ones are then
            those of the labelled images.
        predict_with: Which part predicts in tests, ``'student'`` or ``'teacher'``. None: the teacher if there is one.

    Raises:
        ValueError: An argument out of its range.
    """

    same_geometry: bool  # whether labels belong to pixels

    def __init__(
        self,
        student: dict,
        data_preprocessor: Optional[dict] = None,
        teacher: Optional[dict] = None,
        threshold: Union[float, dict] = 0.95,
        distribution_alignment: Optional[dict] = None,
        unsup_weight: float = 1.0,
        warmup_iters: int = 0,
        joint_forward: bool = True,
        predict_with: Optional[str] = None,
    ) -> None:
        check_weight('semi.unsup_weight', unsup_weight)
        check_integer('semi.warmup_iters', warmup_iters, minimum=0)
        check_flag('semi.joint_forward', joint_forward)
        if teacher is not None:
            check_config('semi.teacher', teacher, 'dict(momentum=0.001)')
        if distribution_alignment is not None:
            check_config('semi.distribution_alignment', distribution_alignment, 'dict(momentum=0.999)')
        parts = PARTS[:1] if teacher is None else PARTS
        if predict_with is not None:
            check_choice('semi.predict_with', predict_with, parts)
        if student.get('data_preprocessor') is None:
            student = {**student, 'data_preprocessor': data_preprocessor}
        model = MMENGINE_MODELS.build(student)
        super().__init__(SemiDataPreprocessor(model.data_preprocessor, self.same_geometry))
        self.student = model
        self.pseudo_labels = PseudoLabels(self.count_classes(), threshold, distribution_alignment)
        self.teacher = None
        if teacher is not None:
            self.teacher = MODELS.build({'type': 'MeanTeacher', **teacher, 'model': model})
        self.unsup_weight = unsup_weight
        self.warmup_iters = warmup_iters
        self.joint_forward = joint_forward
        self.predict_with = predict_with or parts[-1]
        self.register_buffer('steps', torch.tensor(0))
        self._register_load_state_dict_pre_hook(self._take_weights_of_a_plain_model)

    @abstractmethod
    def count_classes(self) -> int:
        """Return K of the student; a TypeError if it cannot be trained like this."""

    @abstractmethod
    def predict_probability(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the probabilities (N, K, ...) that the student or teacher gives to images, in float32."""

    @abstractmethod
    def true_labels(self, samples: List) -> Optional[Tensor]:
        """Return the labels (N,) or (N, H, W) of data samples, of which -1 stands for none; None if there are none."""

    @abstractmethod
    def label_samples(self, view: View) -> List:
        """Return data samples with the labels of a view."""

    def usable(self, mask: Tensor, samples: List) -> Tensor:
        """Return the mask without what is no part of the images."""
        return mask

    def mix(self, view: View) -> View:
        """Return a strong view with its images mixed, if they are to be."""
        return view

    perturbs_features = False  # whether weak views go through the student, too, with features perturbed

    def perturbing(self, start: int) -> ContextManager:
        """Perturb the features of the images from ``start`` on while the context lasts."""
        return nullcontext()

    @property
    def predicting_part(self) -> nn.Module:
        """The model that predicts."""
        return self.student if self.predict_with == 'student' else self.teacher.module

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
        """Return the losses of a step, and what to log of the pseudo-labels.

        The student's own losses are those of the labelled images, except that semantic anchors pull the features of
        all. To these come ``loss_unsup`` and, for the log, ``pseudo_ratio``, the share of pseudo-labels that count,
        ``pseudo_threshold``, the mean one, and ``pseudo_acc``, the share of those that count that are right, where
        labels happen to be known; 0 where none counts.

        Args:
            inputs: (N, C, H, W), labelled images, strong views, weak views.
            data_samples: One per image.
            branches: Number of images by the name of the branch, in this order.
        """
        images = dict(zip(branches, inputs.split(list(branches.values()))))
        each = iter(data_samples)
        samples = {name: [next(each) for _ in range(size)] for name, size in branches.items()}
        labelled, weak = samples['labelled'], samples['weak']
        with torch.no_grad():
            if self.teacher is not None:
                # At the start of a step: at its end, the optimizer's step is not in the hands of a model.
                self.teacher.update_parameters(self.student)
            with self._teaching() as model:
                probability = self.predict_probability(model, images['weak'])
            label, mask, log = self.pseudo_labels(probability, self.true_labels(labelled))
            mask = self.usable(mask, weak)
            log.update(pseudo_ratio=mask.float().mean(), **self._accuracy(label, mask, self.true_labels(weak)))
            names = [name for name in branches if name.startswith('strong')]
            strong = [self.mix(View(images[name], label, mask, samples[name])) for name in names]
            perturbed = [View(images['weak'], label, mask, weak)] if self.perturbs_features else []
            ramp = (self.steps / self.warmup_iters).clamp(max=1) if self.warmup_iters else 1.0
            self.steps += 1
        losses, unsup = self._task_losses(images['labelled'], labelled, strong, perturbed)
        losses.update(loss_unsup=self.unsup_weight * ramp * unsup, **log)
        return losses

    def _task_losses(self, images: Tensor, samples: List, strong: List[View], perturbed: List[View]) -> tuple:
        """Return the student's losses of labelled images, and the loss of unlabelled ones: the mean of both kinds."""
        kinds = [kind for kind in (strong, perturbed) if kind]
        sizes = [sum(len(view.images) for view in kind) for kind in kinds]
        weights = [None if kind[0].weight is None else torch.cat([view.weight for view in kind]) for kind in kinds]
        views = strong + perturbed
        unlabelled = torch.cat([view.images for view in views])
        unlabelled_samples = [sample for view in views for sample in self.label_samples(view)]
        if self.joint_forward:
            split = split_losses(self.student, [len(images), *sizes], [None, *weights])
            with self.perturbing(len(images) + sizes[0]), split as collected:
                losses = self.student.loss(torch.cat([images, unlabelled]), samples + unlabelled_samples)
        else:
            split = split_losses(self.student, [0, *sizes], [None, *weights])
            with two_passes(self.student):
                losses = self.student.loss(images, samples)
                with self.perturbing(sizes[0]), keep_running_stats(self.student), split as collected:
                    second = self.student.loss(unlabelled, unlabelled_samples)
            # In the usual order; what only the second one has are those of the anchors.
            losses = {name: losses.get(name, value) for name, value in second.items()}
        if not collected[0]:
            raise RuntimeError(f'{type(self.student).__name__} called no loss of its heads')
        return losses, sum(map(sum, collected)) / len(collected)

    def _take_weights_of_a_plain_model(self, state_dict: Dict[str, Any], prefix: str, *args) -> None:
        """Turn a checkpoint of the student's model alone into one of the student and of its teacher."""
        if any(name.startswith(f'{prefix}student.') for name in state_dict):
            return
        for name in [name for name in state_dict if name.startswith(prefix)]:
            own, value = name[len(prefix) :], state_dict.pop(name)
            state_dict[f'{prefix}student.{own}'] = value
            if self.teacher is not None:
                state_dict[f'{prefix}teacher.module.{own}'] = value

    @contextmanager
    def _teaching(self) -> Iterator[nn.Module]:
        if self.teacher is not None:
            yield self.teacher.module
        else:
            with evaluating(self.student):
                yield self.student
            # Autocast keeps the weights it has cast, here without the graph that training needs.
            torch.clear_autocast_cache()

    @staticmethod
    def _accuracy(label: Tensor, mask: Tensor, truth: Optional[Tensor]) -> Dict[str, Tensor]:
        if truth is None:
            return {}
        counts = mask & (truth >= 0)
        return dict(pseudo_acc=(counts & (label == truth)).sum() / counts.sum().clamp(min=1))


def check_options(semi: Optional[dict], model_class: type, own: tuple) -> dict:
    """Return the options in ``semi``; a ValueError for one that there is not."""
    valid = [name for name in signature(SemiModel).parameters if name not in ('student', 'data_preprocessor')]
    valid += own
    semi = {} if semi is None else semi
    check_config('semi', semi, 'dict(threshold=0.95)')
    for name in semi:
        check_choice(f'semi.{name}={semi[name]!r}', name, sorted(valid))
    return dict(semi)
