"""Figures of trainings and feature spaces for papers and reports; needs matplotlib, and scikit-learn for the t-SNE.

Every function returns a :class:`matplotlib.figure.Figure`, for ``figure.savefig('x.png')`` or :func:`save_figure`,
without pyplot and its global state.
"""

from .confusion import plot_confusion
from .cosines import plot_cosines
from .curves import plot_curves
from .frequency import plot_accuracy_by_frequency
from .predictions import plot_classified, plot_segmented
from .scores import plot_scores
from .style import class_colours, save_figure
from .tsne import plot_tsne

__all__ = [
    'class_colours',
    'plot_accuracy_by_frequency',
    'plot_classified',
    'plot_confusion',
    'plot_cosines',
    'plot_curves',
    'plot_scores',
    'plot_segmented',
    'plot_tsne',
    'save_figure',
]
