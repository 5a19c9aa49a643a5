"""Training shared by sites that keep their images: messages in, the engine, messages out.

The only package that imports Flower. Flower and Ray read these variables when they are imported: nothing here reports
to anyone, looks for updates, or installs packages.
"""

import os
from pathlib import Path

for _name, _value in {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "FLWR_LOG_LEVEL": "WARNING",
    "FLWR_HOME": str(Path.home() / ".cache" / "mae-bench" / "flower"),
}.items():
    os.environ.setdefault(_name, _value)
