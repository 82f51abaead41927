"""How teachers are called in tables and figures."""

TEACHER_MEAN = "one teacher (mean)"


def ensemble_label(teachers: int) -> str:
    """Returns how an ensemble of so many teachers is called beside students."""
    return f"ensemble of {teachers} teachers" if teachers > 1 else "ensemble of 1 teacher"
