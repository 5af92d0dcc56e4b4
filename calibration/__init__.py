"""Text to activation ranges, to precisions, to measures of what they lose; never torch, and `calibrate` alone needs onnx."""

from .calibrate import Calibration, calibrate
from .probe import Probe, probe
from .quality import Quality, evaluate
from .settings import CalibrationSettings

__all__ = ["Calibration", "CalibrationSettings", "Probe", "Quality", "calibrate", "evaluate", "probe"]
