"""Is a hospital ready? Its versions, its images, the recipe it agreed to, its key, and the way to the server."""

import socket
import ssl
import stat
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from mae_bench.errors import InputError, MaeBenchError
from mae_bench.store import Store
from mae_bench_federated.hospital import open_images
from mae_bench_federated.messages import Malformed
from mae_bench_federated.study import Study

OLDEST = (1, 41)  # of Flower


class Check(NamedTuple):
    """One thing that was looked at."""

    what: str
    right: bool | None  # None: not looked at
    told: str


def check_all(
    path: Path,
    recipe: str,
    data: Path | None,
    server: str | None,
    authority: Path | None,
    key: Path | None,
    store: Store,
) -> list[Check]:
    """Look at everything that was given.

    Raises:
        InputError: the study cannot be read.
    """
    try:
        study = Study.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}", "it is `study.json`, as the server's `federated app` wrote it"
        ) from error
    except ValidationError as error:
        raise InputError(f"{path} is no study of this version of mae-bench") from error
    images = data is not None or study.spec.data.kind == "demo"
    return [
        check_versions(study),
        check_recipe(study, recipe),
        check_images(study, data, store) if images else _not_looked("images", "--data"),
        _not_looked("key", "--key") if key is None else check_key(key),
        *([_not_looked("connection", "--server")] if server is None else check_connection(server, authority)),
    ]


def _not_looked(what: str, option: str) -> Check:
    return Check(what, None, f"not looked at: give {option}")


def check_versions(study: Study) -> Check:
    """Flower is new enough, and mae-bench is that of the study."""
    have, ours = version("flwr"), version("mae-bench")
    right = tuple(int(part) for part in have.split(".")[:2]) >= OLDEST and ours == study.version
    return Check(
        "versions",
        right,
        f"mae-bench {ours} (the study's: {study.version}), flwr {have} (at least {'.'.join(map(str, OLDEST))}), "
        f"torch {version('torch')}",
    )


def check_recipe(study: Study, recipe: str) -> Check:
    """The study is the one that was agreed on."""
    return Check("recipe hash", study.key() == recipe, f"{study.key()} in the file, {recipe} agreed on")


def check_images(study: Study, data: Path | None, store: Store) -> Check:
    """The images can be read, and prepared as the study says."""
    try:
        opened = open_images(study, store, data)
    except (MaeBenchError, Malformed) as error:
        return Check("images", False, str(error))
    skipped = f", {len(opened.prepared.problems)} unusable" if opened.prepared.problems else ""
    return Check("images", bool(opened.split.train), f"{len(opened.split.train)} training cases{skipped}")


def check_key(key: Path) -> Check:
    """The key is there, is one, and is nobody else's to read."""
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        load_ssh_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        # TypeError: it has a passphrase, which nobody would be there to type.
        return Check("key", False, f"{key}: {error}")
    loose = stat.S_IMODE(key.stat().st_mode) & 0o077
    return Check("key", not loose, f"{key} can be read by others: chmod 600 {key}" if loose else str(key))


def check_connection(server: str, authority: Path | None) -> list[Check]:
    """The server answers with a certificate of the authority, and does not let this hospital control it."""
    if authority is None or not authority.is_file():
        return [Check("connection", False, "--ca: the server is trusted by its ca.crt, and there is none")]
    host, _, port = server.rpartition(":")
    try:
        trust = ssl.create_default_context(cafile=str(authority))
    except OSError as error:  # ssl.SSLError is one
        return [Check("connection", False, f"--ca {authority}: no certificate: {error}")]
    try:
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            trust.wrap_socket(plain, server_hostname=host),
        ):
            pass
    except (OSError, ValueError) as error:
        return [Check("connection", False, f"{server}: {error}")]
    health = _status(f"https://{server}/health", trust)
    control = _status(f"https://{server}/v1/control/list-runs", trust)
    closed = control in (403, 404)
    return [
        Check("connection", health == 200, f"{server} answers {health}"),
        Check(
            "control API", closed, f"closed ({control})" if closed else f"OPEN ({control}): anyone here can run code "
            "in every hospital; the server needs its proxy",
        ),
    ]  # fmt: skip


def _status(url: str, trust: ssl.SSLContext) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10, context=trust) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
