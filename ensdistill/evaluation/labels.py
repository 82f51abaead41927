"""Display names of teachers in tables and figures."""

TEACHER_MEAN = "one teacher (mean)"


def ensemble_label(teachers: int) -> str:
    """Returns the display name of an ensemble with this number of teachers."""
    return f"ensemble of {teachers} teachers" if teachers > 1 else "ensemble of 1 teacher"
