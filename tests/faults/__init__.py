"""Faults injected into real studies, and what came of them: `make faults` writes benchmarks/FAULTS.md."""
