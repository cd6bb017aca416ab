"""From raw archives to a scored `answer.csv`: everything is a table of boxes."""

import logging
import os

# ONNX Runtime contacts a telemetry host when it is imported, from native code, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Whoever imports the package hears nothing of it until they configure logging, see `livestock.files.logs`.
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.2.0.dev0"  # the only place: pyproject.toml reads it here; CHANGELOG.md says what is in it
