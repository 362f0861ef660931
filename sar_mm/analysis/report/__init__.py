"""Reports of trainings as one HTML page, and its figures: what tools/analysis_tools/report.py is made of."""

from .examined import Examined, PredictionRecorder
from .runs import Run, read_models

__all__ = ['Examined', 'PredictionRecorder', 'Run', 'read_models']
