"""Settings of processes: the allocator keeps freed memory, and garbage is collected rarely."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from trainables.processes import keep_freed_memory

if sys.argv[1] == "kept" and not keep_freed_memory():
    print(-1)
    sys.exit()

def step():
    parts = [torch.ones(2**22) for _ in range(4)]  # 16 MiB each
    return sum(float(part[0]) for part in parts)

for _ in range(10):  # until the heap has its shape, which takes more than three steps in one run of three
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_step_reuses_the_memory_that_the_previous_step_freed() -> None:
    faults = {}
    for name in ("kept", "given back"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True, check=True)
        faults[name] = int(done.stdout)
    if faults["kept"] < 0:
        pytest.skip("this system's allocator is not glibc's")
    assert faults["given back"] > 10_000
    assert faults["kept"] < 0.1 * faults["given back"]


def test_a_worker_of_ray_collects_garbage_rarely_before_it_imports_torch() -> None:
    program = (
        "import gc; usual = gc.get_threshold(); import trainables.tune_adapter; print(usual[0], gc.get_threshold()[0])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    usual, found = map(int, done.stdout.split())
    assert found > usual
