"""Hyperparameter studies of ensemble distillation: Ray Tune schedules, Optuna suggests, MLflow remembers."""
