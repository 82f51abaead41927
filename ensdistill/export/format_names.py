"""Names of the export formats."""

FORMATS = ("safetensors", "pt2", "onnx")
