"""Settings of a study (loading, validation, preparation) and its state while it runs."""
