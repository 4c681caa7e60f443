"""A machine without Ray and Optuna can import everything but the two modules that use them."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys
sys.modules["ray"] = sys.modules["optuna"] = None
import search_spaces, trainables
for package in (search_spaces, trainables):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            print(module.name, "needs", error.name.partition(".")[0])
"""


def test_only_the_adapter_needs_ray_and_only_the_distributions_need_optuna() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [
        "search_spaces.distributions needs optuna",
        "trainables.tune_adapter needs ray",
    ]
