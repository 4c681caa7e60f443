"""A surrogate of the recorded learning curves: the whole macro-F1 curve of any configuration, and its noise.

One regressor per arm predicts the macro-F1 of all epochs from the hyperparameters (logarithms of log parameters, scaled to
[0, 1]; one column per level of a categorical; 0 for a parameter that does not apply): a Gaussian process with a Matern kernel on
the principal components of the curves, or extra trees, whose landscape has no shape that a Gaussian process as a sampler would
know. benchmarks/README.md has the error of the first beside that of other regressors.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold
from sklearn.multioutput import MultiOutputRegressor

from benchmarks.pages import Table
from benchmarks.search.replay_curves import Curves, FloatArray, Hyperparameters, Recording, encode, place_in_space
from search_spaces.designs import Arm
from search_spaces.errors import UserInputError
from trainables.seeds import numpy_generator

NUM_FOLDS = 10
NUM_STRATA = 3
NUM_COMPONENTS = 3
NUM_TREES, MIN_LEAF = 100, 2
# A seed's part of the variance of a component is never below this: with few trials, the likelihood would estimate none.
MIN_NOISE = 0.02
NUM_RANDOM_CONFIGS = 20_000
REFINEMENT_STEPS = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005)


RegressorKind = Literal["gaussian_process", "extra_trees"]
Regressor = TransformedTargetRegressor | ExtraTreesRegressor


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Out-of-fold agreement of predicted and recorded curves of one arm; `_pp` is percentage points of macro-F1.

    `last_sd_pp` is the spread of the recorded last epochs: the error of predicting their mean.
    """

    num_trials: int
    num_diverged: int
    last_rmse_pp: float
    all_rmse_pp: float
    last_sd_pp: float
    spearman: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSurrogate:
    """The surrogate of one arm.

    Attributes:
        arm: the arm and its space.
        regressor: fitted to all trials that ran to their end.
        predicted: (n, E) out-of-fold curves of the recorded configurations.
        residuals: (n, E) recorded minus predicted: seed noise and misfit together, so too large a noise.
        seconds: (E,) median CPU-seconds of each epoch.
        quality: of the fit.
        diverges_above: maximum learning rate above which a trial diverges, found in the recorded trials.
        good_epochs: epochs before the one at which each recorded trial diverged; empty where none did.
    """

    arm: Arm
    regressor: Regressor
    predicted: FloatArray
    residuals: FloatArray
    seconds: FloatArray
    quality: Quality
    diverges_above: float = np.inf
    good_epochs: tuple[int, ...] = ()

    def diverges(self, hyperparameters: Hyperparameters) -> bool:
        """Return whether a trial of this configuration diverges."""
        return float(hyperparameters["max_lr"]) > self.diverges_above

    def predict(self, features: FloatArray) -> FloatArray:
        """Return the (m, E) noise-free macro-F1 of (m, d) features."""
        return np.clip(predict_curves(self.regressor, features), 0.0, 1.0)

    def draw_noise(self, curve: FloatArray, generator: np.random.Generator) -> FloatArray:
        """Return one (E,) residual curve, whole, so that the noise of its epochs stays correlated.

        It is drawn from those 1 / NUM_STRATA of the recorded trials whose predicted curves are nearest to `curve`: where
        learning rates are too high, curves scatter ten times as much as where they are right.
        """
        distances = np.sum((self.predicted - curve) ** 2, axis=1)
        near = np.argsort(distances, kind="stable")[: max(1, len(distances) // NUM_STRATA)]
        return np.asarray(self.residuals[generator.choice(near)])

    def draw_good_epochs(self, generator: np.random.Generator) -> int:
        """Return after how many epochs a trial diverges: as one of the recorded trials, or after any but the last."""
        return int(generator.choice(self.good_epochs or range(1, self.residuals.shape[1])))


class CurveSurrogate:
    """The surrogate of all arms, which `benchmarks.search.replay_simulation` uses instead of a network."""

    def __init__(self, arms: Mapping[str, ArmSurrogate], factor: str) -> None:
        """Take the arms' surrogates, by name; `factor` is the parameter whose levels they are."""
        self.factor = factor
        self._arms = dict(arms)
        self.true_best: Mapping[str, float] = {name: compute_true_best(surrogate) for name, surrogate in arms.items()}

    @classmethod
    def fit(cls, recording: Recording, regressor: RegressorKind = "gaussian_process") -> "CurveSurrogate":
        """Fit every arm of the recording; deterministic."""
        arms = {arm.name: fit_arm(arm, recording.arms[arm.name], regressor) for arm in recording.spec.arms()}
        return cls(arms, recording.spec.search.factor)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms."""
        return tuple(self._arms)

    @property
    def qualities(self) -> dict[str, Quality]:
        """Cross-validated quality of each arm's fit."""
        return {name: surrogate.quality for name, surrogate in self._arms.items()}

    def surrogate(self, arm: str) -> ArmSurrogate:
        """Return the surrogate of one arm."""
        return self._arms[arm]

    @property
    def num_epochs(self) -> int:
        """Of a full trial."""
        return max(len(surrogate.seconds) for surrogate in self._arms.values())

    def last_scores(self, configurations: Sequence[Hyperparameters]) -> FloatArray:
        """Return the (n,) noise-free macro-F1 of n configurations at the last epoch; NaN of one that diverges."""
        scores = np.full(len(configurations), np.nan)
        for name, surrogate in self._arms.items():
            chosen = [
                number
                for number, one in enumerate(configurations)
                if one[self.factor] == name and not surrogate.diverges(one)
            ]
            if chosen:
                features = [encode(surrogate.arm.space, configurations[number]) for number in chosen]
                scores[chosen] = surrogate.predict(np.array(features))[:, -1]
        return scores

    def mean_curve(self, hyperparameters: Hyperparameters) -> FloatArray:
        """Return the (E,) noise-free macro-F1 of a configuration, which names its level of the factor; NaN if it diverges."""
        surrogate = self._arms[str(hyperparameters[self.factor])]
        curve = np.asarray(surrogate.predict(encode(surrogate.arm.space, hyperparameters)[None])[0])
        return np.full_like(curve, np.nan) if surrogate.diverges(hyperparameters) else curve

    def draw_curve(self, hyperparameters: Hyperparameters, generator: np.random.Generator) -> FloatArray:
        """Return the (E,) macro-F1 of one noisy trial of a configuration, NaN from the epoch at which it diverges."""
        surrogate = self._arms[str(hyperparameters[self.factor])]
        mean = np.asarray(surrogate.predict(encode(surrogate.arm.space, hyperparameters)[None])[0])
        curve = np.clip(mean + surrogate.draw_noise(mean, generator), 0.0, 1.0)
        if surrogate.diverges(hyperparameters):
            curve[surrogate.draw_good_epochs(generator) :] = np.nan
        return np.asarray(curve)

    def seconds(self, arm: str) -> FloatArray:
        """Return the (E,) device-seconds of the arm's epochs."""
        return self._arms[arm].seconds


def fit_arm(arm: Arm, curves: Curves, regressor: RegressorKind = "gaussian_process") -> ArmSurrogate:
    """Fit the curves of one arm, out of fold for the residuals, then all of them; diverged trials are left out."""
    features = np.array([encode(arm.space, h) for h in curves.hyperparameters])
    is_finite = np.isfinite(curves.macro_f1)
    finished = is_finite.all(axis=1)
    recorded = curves.macro_f1[finished]
    predicted = predict_out_of_fold(features[finished], recorded, regressor)
    return ArmSurrogate(
        arm=arm,
        regressor=_fit(features[finished], recorded, regressor),
        predicted=predicted,
        residuals=recorded - predicted,
        seconds=np.nanmedian(curves.cpu_seconds, axis=0),
        quality=_compute_quality(recorded, predicted, num_diverged=int((~finished).sum())),
        diverges_above=_find_divergence(curves.hyperparameters, finished),
        good_epochs=tuple(is_finite[~finished].sum(axis=1).tolist()),
    )


def _find_divergence(hyperparameters: Sequence[Hyperparameters], finished: NDArray[np.bool_]) -> float:
    """Return the maximum learning rate above which trials diverge, as it separates the (n,) trials with the fewest errors."""
    rates = np.array([float(one["max_lr"]) for one in hyperparameters])
    ordered = np.sort(rates)
    candidates = [np.inf, *np.sqrt(ordered[1:] * ordered[:-1])[::-1]]
    return float(min(candidates, key=lambda rate: np.count_nonzero((rates > rate) == finished)))


def predict_out_of_fold(features: FloatArray, curves: FloatArray, regressor: RegressorKind) -> FloatArray:
    """Return (n, E) predictions, each by a regressor that was not fitted to its trial; raise UserInputError below n = 10."""
    if len(features) < NUM_FOLDS:
        raise UserInputError(f"a surrogate needs at least {NUM_FOLDS} finished trials per arm, but got {len(features)}")
    predicted = np.empty_like(curves)
    for train, test in KFold(NUM_FOLDS, shuffle=True, random_state=0).split(features):
        predicted[test] = predict_curves(_fit(features[train], curves[train], regressor), features[test])
    return predicted


def predict_curves(regressor: Regressor, features: FloatArray) -> FloatArray:
    """Return (m, E) predictions, as `regressor.predict` does, but without the threads and the checks of every call.

    Whole searches ask for one configuration at a time, and the checks take longer than the predictions.
    """
    if isinstance(regressor, ExtraTreesRegressor):
        rows = np.ascontiguousarray(features, dtype=np.float32)
        total = sum(tree.tree_.predict(rows).reshape(len(features), -1) for tree in regressor.estimators_)
        return np.asarray(total / len(regressor.estimators_))
    scores = np.column_stack([_predict_component(gp, features) for gp in regressor.regressor_.estimators_])
    components = regressor.transformer_
    return np.asarray(scores @ components.components_ + components.mean_)


def _predict_component(gp: GaussianProcessRegressor, features: FloatArray) -> FloatArray:
    mean = gp.kernel_(features, gp.X_train_) @ gp.alpha_
    return np.asarray(gp._y_train_std * mean + gp._y_train_mean)


def _fit(features: FloatArray, curves: FloatArray, regressor: RegressorKind) -> Regressor:
    """Return a Gaussian process per principal component of the (n, E) curves, or extra trees of whole curves."""
    if regressor == "extra_trees":
        forest = ExtraTreesRegressor(NUM_TREES, min_samples_leaf=MIN_LEAF, random_state=0)
        return forest.fit(features, curves)
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(np.ones(features.shape[1]), (1e-1, 1e2), nu=2.5)
    kernel += WhiteKernel(0.1, (MIN_NOISE, 1e1))
    gp = GaussianProcessRegressor(kernel=kernel, normalize_y=True, n_restarts_optimizer=1, random_state=0)
    components = PCA(min(NUM_COMPONENTS, curves.shape[1]), random_state=0)
    fitted = TransformedTargetRegressor(MultiOutputRegressor(gp), transformer=components, check_inverse=False)
    with warnings.catch_warnings():
        # A length scale at its upper bound is a hyperparameter that does not matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fitted.fit(features, curves)


def _compute_quality(recorded: FloatArray, predicted: FloatArray, *, num_diverged: int) -> Quality:
    errors = 100.0 * (recorded - predicted)
    return Quality(
        num_trials=len(recorded),
        num_diverged=num_diverged,
        last_rmse_pp=float(np.sqrt((errors[:, -1] ** 2).mean())),
        all_rmse_pp=float(np.sqrt((errors**2).mean(axis=0)).mean()),
        last_sd_pp=float(100.0 * recorded[:, -1].std(ddof=1)),
        spearman=float(spearmanr(recorded[:, -1], predicted[:, -1]).statistic),
    )


def compute_true_best(surrogate: ArmSurrogate) -> float:
    """Return the highest noise-free last-epoch macro-F1 of the arm, by dense random search and local refinement."""
    space = surrogate.arm.space
    generator = numpy_generator(0, "true best", surrogate.arm.name)
    points = generator.random((NUM_RANDOM_CONFIGS, len(space.parameters)))
    for step in (*REFINEMENT_STEPS, 0.0):
        configurations = [place_in_space(space, point) for point in points]
        values = surrogate.predict(np.array([encode(space, c) for c in configurations]))[:, -1]
        values[[surrogate.diverges(c) for c in configurations]] = -np.inf
        best = points[np.argsort(values)[::-1][:20]]
        moved = best[:, None, :] + step * generator.standard_normal((len(best), 50, points.shape[1]))
        points = np.vstack([best, np.clip(moved, 0.0, 1.0).reshape(-1, points.shape[1])])
    return float(values.max())


def tabulate_quality(qualities: Mapping[str, Quality], title: str) -> Table:
    """Return the table of cross-validated quality, one row per arm."""
    columns = ("", "trials", "diverged", "RMSE last epoch pp", "RMSE all epochs pp", "SD last epoch pp", "Spearman")
    rows = []
    for name, q in qualities.items():
        figures = (q.last_rmse_pp, q.all_rmse_pp, q.last_sd_pp, q.spearman)
        rows.append((name, str(q.num_trials), str(q.num_diverged), *(f"{figure:.2f}" for figure in figures)))
    return Table(title, columns, rows)
