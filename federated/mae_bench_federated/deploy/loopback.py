"""A whole study on one machine: server, proxy and hospitals as real processes with TLS and keys, on the loopback.

For trials and tests. Every process is started here and is ended here.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from mae_bench.errors import InputError, RunFailed
from mae_bench_federated.deploy import certs, files
from mae_bench_federated.study import Study

BIN = Path(sys.executable).parent
NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


class Loopback:
    """One study. `folder` holds everything; `out` is where its results are."""

    def __init__(self, folder: Path, study: Study, hospitals: list[str], wait: int = 60) -> None:
        if shutil.which("nginx") is None:
            raise InputError("nginx is not installed", "apt-get install nginx")
        self.folder, self.study, self.hospitals, self.wait = folder, study, hospitals, wait
        self.certs, self.out, self.home = folder / "certs", folder / "out", folder / "home"
        self.behind, self.port = free_port(), free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        certs.write_certificates(self.certs, ["localhost", "127.0.0.1"], [*hospitals, "stranger"])
        files.write_app(folder, study, hospitals, self.out, wait)
        files.write_connection(self.home, self.certs / "ca.crt", self.behind)
        files.write_proxy(folder / "site.conf", self.certs, "localhost", self.port, self.behind)
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder))

    def __enter__(self) -> "Loopback":
        """Start the server and the proxy, and register the hospitals."""
        try:
            self.start_server()
            self.start("nginx", ["nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")])
            for name in self.hospitals:
                self.flwr("supernode", "register", str(self.certs / f"{name}.pub"), files.CONNECTION, "--name", name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """End every process that was started."""
        for name in list(self.running):
            self.kill(name)

    def start(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a process in a group of its own, its output in `NAME.log`."""
        variables = {**os.environ, **files.environment(BIN, self.home), **(environment or {})}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, stdout=log, stderr=log, start_new_session=True, env=variables, cwd=self.folder
            )

    def kill(self, name: str) -> None:
        """Kill a process and all that it started, as a power cut would."""
        process = self.running.pop(name)
        # Its children may outlive it by some seconds.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def start_server(self) -> None:
        """Start Flower, and wait until it answers."""
        self.start("server", files.server_command(BIN, self.certs, self.folder / "state.db", self.behind))
        self.until(lambda: self.answer("/health", self.behind) == 200, 60, "the server does not answer")

    def start_hospital(
        self,
        name: str,
        site: int,
        *,
        data: Path | None = None,
        recipe: str | None = None,
        key: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a hospital's node, which reaches the server through the proxy. Without data it has the stand-in."""
        config: dict[str, str | int] = {
            "site": site, "store": str(self.folder / "stores" / name), "recipe": recipe or self.study.key(),
        }  # fmt: skip
        if data is not None:
            config["data"] = str(data)
        command = files.node_command(
            BIN, f"localhost:{self.port}", self.certs / "ca.crt", self.certs / f"{key or name}.key", config, free_port()
        )
        home = {"FLWR_HOME": str(self.folder / "homes" / name)}
        self.start(name, command, home | dict(environment or {}))

    def flwr(self, *arguments: str) -> str:
        """Run Flower's command line on the server; its output.

        Raises:
            RunFailed: it failed; with its output.
        """
        done = subprocess.run(
            [str(BIN / "flwr"), *arguments], capture_output=True, text=True, check=False, cwd=self.folder,
            env={**os.environ, **files.environment(BIN, self.home)},
        )  # fmt: skip
        if done.returncode:
            raise RunFailed(f"flwr {arguments[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def submit(self) -> None:
        """Start the study, or go on with it."""
        app, run = str(self.folder / "app"), str(self.folder / "run.toml")
        self.flwr("run", app, files.CONNECTION, "--run-config", run)

    def rounds(self) -> int:
        """Rounds that are done, by the last checkpoint."""
        from mae_bench.engine import checkpoint

        state = checkpoint.load(self.out / "checkpoint.pt")
        return 0 if state is None else int(state["round"])

    def wait_for_rounds(self, number: int, seconds: float) -> None:
        """Wait until so many rounds are done."""
        self.until(lambda: self.rounds() >= number, seconds, f"round {number} is not done")

    def wait_for_end(self, seconds: float) -> list[dict[str, object]]:
        """Wait until the study is done; its events."""
        self.until((self.out / "done").is_file, seconds, "the study is not done")
        events: list[dict[str, object]] = json.loads((self.out / "events.json").read_text())
        return events

    def until(self, true: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for something. Raises RunFailed with the ends of all logs when it does not come."""
        end = time.monotonic() + seconds
        while not true():
            if time.monotonic() > end:
                logs = [f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.folder.glob("*.log")]
                raise RunFailed("\n".join([f"{what} after {seconds:.0f} s", *logs]))
            time.sleep(0.2)

    def answer(self, path: str, port: int | None = None) -> int:
        """HTTP status of a request: to the proxy, or to another port; 0 when nobody answers."""
        trust = ssl.create_default_context(cafile=str(self.certs / "ca.crt"))
        try:
            url = f"https://127.0.0.1:{port or self.port}{path}"
            with urllib.request.urlopen(url, data=None if path == "/health" else b"", timeout=5, context=trust) as got:
                return int(got.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
