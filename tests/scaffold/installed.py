"""Puts a distribution into a folder as pip would leave it there, without a build tool: sources and metadata."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path


def install(project: Path, site: Path) -> None:
    """Copy the packages of `project` to `site` and write the metadata that its pyproject.toml declares."""
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    shutil.copytree(project / "src", site, dirs_exist_ok=True)
    info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.4", f"Name: {about['name']}", f"Version: {about['version']}"]
    (info / "METADATA").write_text("\n".join([*lines, f"License-Expression: {about['license']}", ""]))
    entries = [f"{name} = {module}" for name, module in about["entry-points"]["mae_bench"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[mae_bench]", *entries, ""]))


def mae_bench(site: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The installed command, in an environment that also has what is in `site`."""
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "200", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("mae-bench")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=site, env=environment, timeout=300)
