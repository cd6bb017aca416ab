"""From raw archives to a scored `answer.csv`: everything is a table of boxes."""

import os

# ONNX Runtime contacts a telemetry host when it is imported, from native code, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
