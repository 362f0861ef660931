from .class_reservoir import ClassReservoir
from .feature_statistics import FeatureStatistics, geometry

__all__ = ['ClassReservoir', 'FeatureStatistics', 'geometry']
