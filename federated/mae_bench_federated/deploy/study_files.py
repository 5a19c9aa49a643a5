"""All files of one study, for its server and for each hospital."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mae_bench_federated.deploy import files
from mae_bench_federated.study import Study

BIN = Path(sys.executable).parent
NODE = Path("/etc/mae-bench")  # where a hospital keeps its key, and ca.crt
DATA, STORE = Path("/srv/images"), Path("/var/lib/mae-bench")


def write_study(
    folder: Path, study: Study, hospitals: Sequence[str], *, host: str, port: int, certificates: Path, out: Path
) -> list[Path]:
    """Write app/, run.toml, server/ and one folder for each hospital.

    Args:
        folder: where.
        study: what is trained.
        hospitals: names of the nodes, in the order of their sites.
        host: name of the server.
        port: of the proxy.
        certificates: folder of the certificates on the server.
        out: folder of the results on the server.

    Returns:
        What was written.
    """
    certificates, out = certificates.absolute(), out.absolute()
    home = out / "flower"
    written = files.write_app(folder, study, hospitals, out / study.key())
    written += files.write_connection(folder / "server", certificates / "ca.crt")
    written += files.write_proxy(folder / "server" / "mae-bench.nginx.conf", certificates, host, port)
    command = files.server_command(BIN, certificates, out / "state.db")
    unit = folder / "server" / "mae-bench-server.service"
    written += files.write_unit(unit, "Flower server of a mae-bench study", out, command, home)
    for site, name in enumerate(hospitals):
        config: dict[str, str | int] = {
            "site": site, "recipe": study.key(), "data": str(DATA), "store": str(STORE / "store"),
        }  # fmt: skip
        command = files.node_command(BIN, f"{host}:{port}", NODE / "ca.crt", NODE / f"{name}.key", config)
        unit = folder / name / "mae-bench-node.service"
        written += files.write_unit(unit, f"Flower node of {name}", STORE, command, STORE / "flower")
    return written
