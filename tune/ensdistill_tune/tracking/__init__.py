"""MLflow: sends events, names fields and views, starts the server, registers models."""
