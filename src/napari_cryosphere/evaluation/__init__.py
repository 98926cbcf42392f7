"""Evaluation: metrics, protocols and the experiments of the works it builds on. Import from the modules."""
