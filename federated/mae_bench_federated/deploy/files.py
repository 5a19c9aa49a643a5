"""The files of a study: the app that `flwr run` sends, connection, units of systemd, and the proxy before the server.

The proxy is what keeps hospitals safe from each other: on Flower's one port lie the API of the fleet and the one by
which code is sent to every hospital. Only the first is let through.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path

from mae_bench.store import write_bytes
from mae_bench_federated.study import Study

CONNECTION = "study"  # what `flwr` calls the server
BEHIND = 9092  # port of Flower itself, on the loopback of the server

APP = """\
# The app that `flwr run` sends: this file and the licence. The code is the installed package `mae-bench`, on the server
# and in every hospital: nothing that a server sends is run.
[project]
name = "mae-bench-federated"
version = "0.1.0"
description = "Self-supervised pre-training across hospitals that may not share images"
license = { file = "LICENSE" }
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "mae-bench"
fab-format-version = 1
flwr-version-target = "1.42.0"
fab-include = ["pyproject.toml", "LICENSE"]

[tool.flwr.app.components]
serverapp = "mae_bench_federated.server_app:app"
clientapp = "mae_bench_federated.client_app:app"

# Only what is declared here can be set. `mae-bench federated app` writes a file for --run-config.
[tool.flwr.app.config]
study = ""       # the specification, without images
recipe-hash = "" # its hash, which each hospital compares with the one it agreed to
sites = ""       # names of the hospitals' nodes, with commas
out = "out"      # folder of the server: results, and what a killed run continues from
wait = 60        # seconds that a round waits for nodes that are not connected
"""

UNIT = """\
[Unit]
Description={what}
After=network-online.target
Wants=network-online.target

[Service]
{environment}
User=mae-bench
WorkingDirectory={folder}
ReadWritePaths={folder}
ExecStart={command}
# Flower refuses a node that comes back within a minute of its death: it must try again.
Restart=always
RestartSec=30
# What a run sends here is run by a user who can write nothing but its own folder.
NoNewPrivileges=true
PrivateTmp=true
ProtectSystem=strict
ProtectHome=read-only

[Install]
WantedBy=multi-user.target
"""

NGINX = """\
# Hospitals reach the fleet API, and nothing else: whoever reaches /v1/control can run code in every hospital.
server {{
    listen {listen} ssl;
    server_name {name};
    ssl_certificate {folder}/server.crt;
    ssl_certificate_key {folder}/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;

    client_max_body_size 64m; # weights travel in pieces of 5 MiB
    proxy_request_buffering off;
    proxy_buffering off;
    proxy_read_timeout 300s;
    proxy_ssl_trusted_certificate {folder}/ca.crt;
    proxy_ssl_verify on;
    proxy_ssl_name {name};
    proxy_ssl_server_name on;

    location /v1/fleet/ {{ proxy_pass https://127.0.0.1:{behind}; }}
    location = /health {{ proxy_pass https://127.0.0.1:{behind}; }}
    location / {{ return 403; }}
}}
"""


def write_app(folder: Path, study: Study, sites: Sequence[str], out: Path, wait: int = 60) -> list[Path]:
    """Write app/ (for `flwr run`) and run.toml (for its --run-config)."""
    licence = distribution("mae-bench").read_text("licenses/LICENSE")
    run = {"study": study.text(), "recipe-hash": study.key(), "sites": ",".join(sites), "out": str(out), "wait": wait}
    # A JSON string is a TOML string, and a JSON number a TOML number.
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in run.items())
    return _write(
        {
            folder / "app" / "pyproject.toml": APP,
            folder / "app" / "LICENSE": licence or "Apache-2.0\n",
            folder / "run.toml": lines,
        }
    )


def write_connection(home: Path, authority: Path, behind: int = BEHIND) -> list[Path]:
    """Write the connection of `flwr` on the server itself, by the loopback, as $FLWR_HOME/config.toml."""
    text = (
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "127.0.0.1:{behind}"\n'
        f"root-certificates = {json.dumps(str(authority))}\n"
    )
    return _write({home / "config.toml": text})


def write_proxy(path: Path, certificates: Path, host: str, port: int, behind: int = BEHIND) -> list[Path]:
    """Write the nginx site of the server."""
    text = NGINX.format(listen=port, name=host, folder=certificates, behind=behind)
    return _write({path: text})


def server_command(bin_folder: Path, certificates: Path, database: Path, behind: int = BEHIND) -> list[str]:
    """The command of the server, which listens on its loopback alone."""
    return [
        str(bin_folder / "flower-superlink"), "--ssl-ca-certfile", str(certificates / "ca.crt"),
        "--ssl-certfile", str(certificates / "server.crt"), "--ssl-keyfile", str(certificates / "server.key"),
        "--enable-supernode-auth", "--disable-runtime-dependency-installation", "--host", "127.0.0.1",
        "--port", str(behind), "--database", str(database),
    ]  # fmt: skip


def node_command(
    bin_folder: Path,
    server: str,
    authority: Path,
    key: Path,
    config: Mapping[str, str | int],
    port: int = 9094,
) -> list[str]:
    """The command of a hospital's node, which opens no port but on its own loopback."""
    pairs = " ".join(f"{name}={json.dumps(value)}" for name, value in config.items())
    return [
        str(bin_folder / "flower-supernode"), "--superlink", server, "--root-certificates", str(authority),
        "--auth-supernode-private-key", str(key), "--host", "127.0.0.1", "--port", str(port), "--node-config", pairs,
    ]  # fmt: skip


def environment(bin_folder: Path, home: Path) -> dict[str, str]:
    """Variables that Flower reads when it starts: nothing is reported, looked up or installed.

    It finds the programs that it starts in turn by PATH alone.
    """
    return {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_HOME": str(home),
        "PATH": f"{bin_folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }


def write_unit(path: Path, what: str, folder: Path, command: Sequence[str], home: Path) -> list[Path]:
    """Write a unit of systemd that starts a command again when it ends."""
    variables = environment(Path(command[0]).parent, home)
    lines = "\n".join(f"Environment={name}={value}" for name, value in variables.items())
    quoted = " ".join(_quote(word) for word in command)
    return _write({path: UNIT.format(what=what, environment=lines, folder=folder, command=quoted)})


def _quote(word: str) -> str:
    """As systemd splits commands: within single quotes only a backslash, a quote and its own % and $ are special."""
    if not any(character in word for character in " \"'\\%$"):
        return word
    escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("%", "%%").replace("$", "$$")
    return f"'{escaped}'"


def _write(files: Mapping[Path, str]) -> list[Path]:
    for path, text in files.items():
        write_bytes(path, text.encode())
    return list(files)
