"""Parts of ``watch``: files that arrive, the run's state on disk, the worker and its running sums."""
