"""Ensembles and hyperparameter search for deep metric learning, on Ray."""

__version__ = "0.1.0"
