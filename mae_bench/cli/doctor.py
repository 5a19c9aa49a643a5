"""`mae-bench doctor`: is this machine ready?"""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

import typer

from mae_bench.cli import output

PACKAGES = ("mae-bench", "torch", "timm", "monai", "accelerate", "nibabel", "nilearn", "numpy", "pydantic", "typer")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(store: output.StoreOption = None, as_json: output.JsonOption = False) -> None:
    """Print versions, devices, the store and what is wrong with any plugin; exit 3 if something is."""
    import torch

    from mae_bench.registry import registry

    place = output.open_store(store)
    plugins = registry()
    parent = next(path for path in (place.root, *place.root.parents) if path.exists())
    packages = {name: _version(name) for name in PACKAGES}
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "store": str(place.root),
        "store_writable": os.access(parent, os.W_OK),
        "store_free_gb": round(shutil.disk_usage(parent).free / 1e9, 1),
        "plugins": len(plugins.all()),
        "unavailable_plugins": plugins.unavailable,
    }
    rows = [(name, value) for name, value in found.items() if name != "packages"]
    rows += [(f"package {name}", value) for name, value in packages.items()]
    output.show(found, as_json, lambda: output.make_table("doctor", ["what", "found"], rows))
    if plugins.unavailable or not found["store_writable"]:
        raise typer.Exit(3)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
