"""Predictions, metrics and calibration of networks, and tables of them."""
