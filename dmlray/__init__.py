"""Ensembles and hyperparameter search for deep metric learning, on Ray."""

__version__ = "0.2.0.dev0"
