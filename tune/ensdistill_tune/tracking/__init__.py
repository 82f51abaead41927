"""Tracking with MLflow: writes runs, describes them, provides links to views, starts the server, registers models."""
