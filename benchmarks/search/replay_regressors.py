"""The candidates for predicting a whole learning curve from a configuration's features."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, Matern, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.multioutput import MultiOutputRegressor

from benchmarks.search.replay_curves import FloatArray

NUM_COMPONENTS = 3
# A seed's part of the variance of a component is never below this; with few trials the likelihood would claim none at all.
LEAST_NOISE = 0.02


class Regressor(Protocol):
    """What is used of a scikit-learn regressor with several outputs."""

    def fit(self, X: FloatArray, y: FloatArray) -> Any:
        """Fit to features (n, d) and curves (n, E)."""

    def predict(self, X: FloatArray) -> FloatArray:
        """Return curves (n, E) of features (n, d)."""


def _make_gp(kernel: Callable[[int], Kernel], num_features: int) -> Regressor:
    """Return a Gaussian process per principal component of the curves."""
    full = ConstantKernel(1.0, (1e-2, 1e2)) * kernel(num_features) + WhiteKernel(0.1, (LEAST_NOISE, 1e1))
    gp = GaussianProcessRegressor(kernel=full, normalize_y=True, n_restarts_optimizer=1, random_state=0)
    return _on_components(MultiOutputRegressor(gp))


def _on_components(regressor: Any) -> Regressor:
    components = PCA(NUM_COMPONENTS, random_state=0)
    on_components: Regressor = TransformedTargetRegressor(regressor, transformer=components, check_inverse=False)
    return on_components


def _rbf(num_features: int) -> Kernel:
    return RBF(np.ones(num_features), (1e-1, 1e2))


def _matern(num_features: int) -> Kernel:
    return Matern(np.ones(num_features), (1e-1, 1e2), nu=2.5)


REGRESSORS: Mapping[str, Callable[[int], Regressor]] = {
    "gp_rbf": partial(_make_gp, _rbf),
    "gp_matern": partial(_make_gp, _matern),
    "extra_trees": lambda _: ExtraTreesRegressor(300, min_samples_leaf=2, random_state=0),
    "kernel_ridge": lambda _: _on_components(KernelRidge(alpha=0.1, kernel="rbf", gamma=0.3)),
}
