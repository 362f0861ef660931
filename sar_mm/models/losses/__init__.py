from .sar_loss import SARLoss

__all__ = ['SARLoss']
