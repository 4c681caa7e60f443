"""Whole studies on a simulated clock, disk and cluster, as FoundationDB and TigerBeetle are tested: the real code, and one seed.

The seed picks the study, the order of all steps, and the faults. Real are the record book, leases and fences, the directors, the
stages of search and confirmation, the plan, `TrialWorker` and its files, and the searcher and scheduler that Ray Tune calls.
Simulated are the clock, hosts and processes (`scheduler`), the storage (`storage_models`), the training (`training_model`) and
Tune's loop (`tune_model`). `invariants` says what must hold whatever happens; `mutants` breaks the product on purpose.

    python -m tests.simulation --seeds 1000
"""
