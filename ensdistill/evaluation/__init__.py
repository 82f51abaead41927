"""Predictions, metrics, calibration and tables."""
