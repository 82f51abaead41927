"""Predictions, metrics and calibration of networks, and the tables that show them."""
