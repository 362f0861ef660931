"""Where the names of this package live."""

from typing import Callable, Optional

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

from .checks import check_choice


class PluginRegistry(Registry):
    """A child registry that registers its modules with its parent, the root registry, as well.

    The child answers to ``type='sar_mm.X'``, the root to the bare ``type='X'`` whatever the default scope is.
    """

    def register_module(self, name=None, force: bool = False, module: Optional[type] = None) -> Callable:
        """See :meth:`mmengine.registry.Registry.register_module`."""
        if module is None:
            super().register_module(name=name, force=force)  # a TypeError for `@register_module` without parentheses
            return lambda module: self.register_module(name=name, force=force, module=module)
        self.parent.register_module(name=name, force=force, module=module)
        return super().register_module(name=name, force=force, module=module)


def build_anchors(cfg: dict, registry: Registry) -> Callable:
    """Build predefined anchors from ``cfg``; a ValueError names the kinds there are when ``type`` is unknown."""
    options = dict(cfg)
    kind = options.pop('type', None)
    anchors = registry.get(kind) if isinstance(kind, str) else kind
    if not callable(anchors):
        check_choice('anchors.type', kind, sorted(registry.module_dict))
    return anchors(**options)


MODELS = PluginRegistry(
    'model', parent=MMENGINE_MODELS, scope='sar_mm', locations=['sar_mm.models', 'sar_mm.baselines']
)
DATASETS = PluginRegistry('dataset', parent=MMENGINE_DATASETS, scope='sar_mm', locations=['sar_mm.datasets'])
DATA_SAMPLERS = PluginRegistry(
    'data sampler', parent=MMENGINE_DATA_SAMPLERS, scope='sar_mm', locations=['sar_mm.datasets']
)
TRANSFORMS = PluginRegistry('transform', parent=MMENGINE_TRANSFORMS, scope='sar_mm', locations=['sar_mm.datasets'])
HOOKS = PluginRegistry('hook', parent=MMENGINE_HOOKS, scope='sar_mm', locations=['sar_mm.engine.hooks'])
LOOPS = PluginRegistry('loop', parent=MMENGINE_LOOPS, scope='sar_mm', locations=['sar_mm.engine.loops'])
MODEL_WRAPPERS = PluginRegistry(
    'model_wrapper', parent=MMENGINE_MODEL_WRAPPERS, scope='sar_mm', locations=['sar_mm.engine.data_parallel']
)
RUNNERS = PluginRegistry('runner', parent=MMENGINE_RUNNERS, scope='sar_mm', locations=['sar_mm.engine.runner'])
METRICS = PluginRegistry('metric', parent=MMENGINE_METRICS, scope='sar_mm', locations=['sar_mm.evaluation'])
# Anchors are no OpenMMLab models, and no host library has any: a registry of their own, looked up without scopes.
ANCHORS = Registry('anchors', build_func=build_anchors, scope='sar_mm', locations=['sar_mm.anchors'])
