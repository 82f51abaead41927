"""The kinds of files that a student is exported as."""

FORMATS = ("safetensors", "pt2", "onnx")
