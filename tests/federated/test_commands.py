"""`mae-bench federated`: what it writes is what OpenSSL, nginx, systemd and Flower read; what it checks."""

import json
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mae_bench_federated.deploy.files import APP
from mae_bench_federated.messages import Malformed
from mae_bench_federated.study import Study, read_study
from tests.federated.sites import mae_bench, run_json

HERE = Path(__file__).parents[2]
APP_FLAGS = [
    "--dataset", "mni152", "--pretrain", "mae", "--recipe", "smoke", "--set", "dataset.subjects=9",
    "--set", "dataset.spacing=6", "--rounds", "2", "--local-steps", "2", "--deadline", "60",
    "--host", "study.example.org", "--hospital", "north", "--hospital", "south",
]  # fmt: skip


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs") / "certs"
    run_json("federated", "certs", folder, "--host", "study.example.org", "--hospital", "north", "--hospital", "south")
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory, certs):
    folder = tmp_path_factory.mktemp("study")
    found = run_json("federated", "app", folder / "files", *APP_FLAGS, "--certs", certs, "--store", folder / "store")
    return folder, found["recipe"]


def test_the_certificate_is_that_of_the_server_and_of_no_one_else(certs):
    trust = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", certs / "ca.crt"]
    for name, right in (("study.example.org", True), ("elsewhere.example.org", False)):
        done = subprocess.run(
            [*trust, "-verify_hostname", name, certs / "server.crt"], check=False, capture_output=True
        )
        assert (done.returncode == 0) is right, done.stderr
    for secret in ("ca.key", "server.key", "north.key", "south.key"):
        assert stat.S_IMODE((certs / secret).stat().st_mode) == 0o600
    assert (certs / "north.pub").read_text().startswith("ecdsa-sha2-nistp384 ")
    again = mae_bench("federated", "certs", certs, "--host", "x", "--hospital", "north")
    assert again.returncode == 3
    assert "is there already" in again.stderr


def test_the_app_is_the_one_in_this_folder():
    assert (HERE / "federated" / "pyproject.toml").read_text() == APP
    app = tomllib.loads(APP)["tool"]["flwr"]["app"]
    for name in app["components"].values():
        module, _, thing = name.partition(":")
        source = HERE / "federated" / Path(*module.split(".")).with_suffix(".py")
        assert f"\n{thing} = " in source.read_text()


def test_a_study_travels_by_its_run_file(study):
    folder, recipe = study
    run = tomllib.loads((folder / "files" / "run.toml").read_text())
    read = read_study(run["study"], run["recipe-hash"])
    assert read == Study.model_validate_json((folder / "files" / "study.json").read_bytes())
    assert read.key() == recipe == run["recipe-hash"]
    assert run["sites"] == "north,south"
    assert set(run) == set(tomllib.loads(APP)["tool"]["flwr"]["app"]["config"])
    with pytest.raises(Malformed, match="is not the"):
        read_study(run["study"].replace('"lr":0.001', '"lr":0.002'), recipe)
    with pytest.raises(Malformed, match="not one of this version"):
        read_study(run["study"].replace('"ratio"', '"ratoi"').replace('"spec"', '"speck"'), recipe)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed: the proxy's file is not tested")
def test_nginx_reads_its_site(study, tmp_path):
    folder, _ = study
    site = (folder / "files" / "server" / "mae-bench.nginx.conf").read_text()
    main = tmp_path / "nginx.conf"
    main.write_text(f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; {site} }}")
    done = subprocess.run(["nginx", "-t", "-c", str(main)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "location / { return 403; }" in site


def test_units_start_again_and_tell_nobody(study):
    folder, recipe = study
    for unit in ("server/mae-bench-server.service", "north/mae-bench-node.service"):
        text = (folder / "files" / unit).read_text()
        assert "Restart=always\nRestartSec=30\n" in text
        assert "Environment=FLWR_TELEMETRY_ENABLED=0" in text
    node = (folder / "files" / "south" / "mae-bench-node.service").read_text()
    assert f'recipe="{recipe}"' in node
    assert "site=1 " in node
    assert "--superlink study.example.org:443" in node


def test_check_tells_right_from_wrong(study, certs):
    folder, recipe = study
    command = ["federated", "check", folder / "files" / "study.json", "--store", folder / "store"]
    found = run_json(*command, "--recipe", recipe, "--key", certs / "north.key")
    assert {each["what"]: each["right"] for each in found} == {
        "versions": True, "recipe hash": True, "images": True, "key": True, "connection": None,
    }  # fmt: skip
    locked, torn = folder / "locked.key", folder / "torn.crt"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "secret", "-f", str(locked)], check=True)
    torn.write_text("-----BEGIN CERTIFICATE-----")
    told = mae_bench(
        *command, "--recipe", recipe, "--key", locked, "--server", "127.0.0.1:1", "--ca", torn, "--json"
    )  # fmt: skip
    assert told.returncode == 3
    faults = [problem.partition(":")[0] for problem in json.loads(told.stdout)["error"]["problems"]]
    assert faults == ["key", "connection"]
    gone = mae_bench("federated", "check", folder / "gone.json", "--recipe", recipe, "--json")
    assert (gone.returncode, "gone.json" in gone.stdout) == (3, True)
    wrong = mae_bench(
        *command, "--recipe", "0" * 20, "--key", certs / "north.pub", "--server", "127.0.0.1:1",
        "--ca", certs / "ca.crt", "--json",
    )  # fmt: skip
    assert wrong.returncode == 3
    problems = json.loads(wrong.stdout)["error"]["problems"]
    assert [problem.partition(":")[0] for problem in problems] == ["recipe hash", "key", "connection"]


def test_without_flower_it_says_what_to_install(tmp_path):
    """In a process that cannot import Flower: the command line works, and what needs Flower explains itself."""
    probe = (
        "import sys, importlib.util as util; real = util.find_spec\n"
        "util.find_spec = lambda name, package=None: None if name == 'flwr' else real(name, package)\n"
        "from mae_bench.cli import main; sys.argv = ['mae-bench', *sys.argv[1:]]; main()"
    )
    command = [sys.executable, "-W", "ignore", "-c", probe]
    certs = [*command, "federated", "certs", tmp_path / "c", "--host", "x", "--hospital", "a"]
    done = subprocess.run(list(map(str, certs)), check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'mae-bench[federated]'" in done.stderr


def test_bad_names_are_refused(tmp_path):
    for names in (["../a"], ["ca"], ["a", "a"]):
        hospitals = [word for name in names for word in ("--hospital", name)]
        assert mae_bench("federated", "certs", tmp_path / "c", "--host", "x", *hospitals).returncode == 2
