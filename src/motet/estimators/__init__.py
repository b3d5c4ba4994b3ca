"""Estimators in the manners of scikit-learn."""

from motet.estimators.conformal import SplitConformal as SplitConformal
from motet.estimators.cv import MixedOutcomeNetCV as MixedOutcomeNetCV
from motet.estimators.cv_plus import CVPlus as CVPlus
from motet.estimators.mixed_outcome import MixedOutcomeNet as MixedOutcomeNet
from motet.estimators.outcome_scale import OutcomeScale as OutcomeScale
from motet.estimators.outcomes import Survival as Survival
from motet.estimators.score_scale import ScoreScale as ScoreScale
from motet.estimators.single import RankNetClassifier as RankNetClassifier
from motet.estimators.single import RankNetRegressor as RankNetRegressor
from motet.estimators.single import RankNetSurvival as RankNetSurvival
