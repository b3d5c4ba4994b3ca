"""Estimators in the manners of scikit-learn: `MixedOutcomeNet`, and what belongs to it.

- `MixedOutcomeNet` and `MixedOutcomeNetCV` find the features that outcomes of different kinds share; `Survival` names
  the two columns of a censored time.
- `RankNetRegressor`, `RankNetClassifier` and `RankNetSurvival` are for one outcome.
- `OutcomeKFold` makes folds for `GridSearchCV` or `cross_val_score` in which every outcome has its share of what is
  rare.
- `ScoreScale`, `OutcomeScale`, `SplitConformal` and `CVPlus` bring scores of any model to an outcome's scale.
"""

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
from motet.estimators.splits import OutcomeKFold as OutcomeKFold
