"""A hyperparameter search: Ray Tune with Optuna, over class-disjoint folds."""
