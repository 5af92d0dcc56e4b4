"""Text to activation ranges, to precisions, to measures of what they lose. Needs the `export` extra, but not torch."""

from .calibrate import Calibration, calibrate
from .probe import Probe, probe
from .quality import Quality, evaluate
from .settings import CalibrationSettings

__all__ = ["Calibration", "CalibrationSettings", "Probe", "Quality", "calibrate", "evaluate", "probe"]
