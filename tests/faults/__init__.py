"""Faults injected into real studies; `make faults` writes the outcomes to benchmarks/FAULTS.md."""
