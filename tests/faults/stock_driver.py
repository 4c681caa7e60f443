"""A driver of stock Ray Tune as in its documentation, with trials that only sleep and log their epochs."""

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

MODE, PLACE = sys.argv[1], Path(sys.argv[2])
NUM_TRIALS = int(os.environ.get("STOCK_TRIALS", "4" if "short" in MODE else "8"))
SECONDS = 0.05 if "short" in MODE or "nan" in MODE else 0.8
SPOILED_SHARE = float(os.environ.get("STOCK_SPOILED_SHARE", "0"))


class Sleeper(tune.Trainable):  # type: ignore[misc]
    """One epoch is one short sleep; the state is the epoch's number."""

    def setup(self, config: dict[str, Any]) -> None:
        self._epoch = 0
        # Tune's trials have random names, so the faults are drawn from the configuration.
        chooser = random.Random(repr(config["lr"]))
        self._spoiled_from = chooser.randint(1, 3) if chooser.random() < SPOILED_SHARE else 99
        self._spoiled_value = float(chooser.choice(["nan", "inf", "-inf"]))

    def step(self) -> dict[str, Any]:
        time.sleep(SECONDS)
        self._epoch += 1
        value = 0.5 + self.config["lr"] * 0.1 + 0.02 * self._epoch
        if self._epoch >= self._spoiled_from:
            value = self._spoiled_value
        self._log("epoch", epoch=self._epoch, spoiled=self._epoch == self._spoiled_from)
        if self._epoch >= 6:
            self._log("end", epoch=self._epoch, spoiled=False)
        return {"macro_f1": value, "epoch": self._epoch, "done": self._epoch >= 6}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, int]:
        return {"epoch": self._epoch}

    def load_checkpoint(self, checkpoint: Any) -> None:
        self._epoch = checkpoint["epoch"]

    def _log(self, event: str, **values: Any) -> None:
        line = {"event": event, "trial": self.trial_id, "config": repr(self.config["lr"]), **values}
        handle = os.open(PLACE / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (json.dumps(line) + "\n").encode())
        os.fsync(handle)
        os.close(handle)


def main() -> None:
    """Fit or restore, then write a summary of the result grid."""
    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=2)
    path, space = str(PLACE / "stock"), {"lr": tune.uniform(0.0, 1.0)}
    if MODE.startswith("restore"):
        tuner = tune.Tuner.restore(path, Sleeper, resume_unfinished=True, param_space=space)
    else:
        tune_config = tune.TuneConfig(
            metric="macro_f1",
            mode="max",
            num_samples=NUM_TRIALS,
            search_alg=ConcurrencyLimiter(OptunaSearch(seed=0), max_concurrent=2),
            scheduler=ASHAScheduler(time_attr="training_iteration", max_t=6, grace_period=2, reduction_factor=3),
        )
        checkpoints = tune.CheckpointConfig(checkpoint_frequency=1)
        run_config = tune.RunConfig(name="stock", storage_path=str(PLACE), verbose=0, checkpoint_config=checkpoints)
        tuner = tune.Tuner(Sleeper, param_space=space, tune_config=tune_config, run_config=run_config)
    grid = tuner.fit()
    trials = [Path(result.path).name.split("_")[1] for result in grid]
    best = grid.get_best_result("macro_f1", "max", filter_nan_and_inf=False).metrics["macro_f1"] if len(grid) else None
    (PLACE / "result.json").write_text(json.dumps({"trials": trials, "failed": grid.num_errors, "best": str(best)}))


if __name__ == "__main__":
    main()
