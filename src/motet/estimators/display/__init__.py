"""Pictures of a fitted estimator, in the manner of scikit-learn's displays; matplotlib is loaded when one is drawn."""

from motet.estimators.display.calibration import CalibrationDisplay as CalibrationDisplay
from motet.estimators.display.cross_validation import CVDisplay as CVDisplay
from motet.estimators.display.path import PathDisplay as PathDisplay
from motet.estimators.display.seeing import Seeing as Seeing
from motet.estimators.display.stability import StabilityDisplay as StabilityDisplay
from motet.estimators.display.survival import SurvivalDisplay as SurvivalDisplay
