"""A study between real processes on the loopback, with TLS, keys and nginx: deaths, restarts, strangers, lies."""

import json
import shutil
from pathlib import Path

import pytest

import mae_bench_federated
from mae_bench.engine import checkpoint
from mae_bench_federated.deploy.loopback import Loopback
from mae_bench_federated.study import make_study
from tests.federated.sites import make_cell_of

pytestmark = pytest.mark.slow
HOSPITALS = ["north", "south", "west"]


@pytest.fixture(scope="module", autouse=True)
def nginx():
    """A real proxy; `.ci/run` installs it."""
    if shutil.which("nginx") is None:
        pytest.skip("THE DEPLOYMENT IS NOT TESTED: nginx is not installed (apt-get install nginx)")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def study_of(store, **settings):
    cell = make_cell_of(store, "mae", federation__deadline=120, **settings)
    return make_study(cell.spec, cell.data.task)


def share_store(loopback, store):
    """Hospitals find the stand-in prepared: each has its own copy."""
    for name in loopback.hospitals:
        shutil.copytree(store, loopback.folder / "stores" / name)


def test_a_hospital_dies_then_the_server_and_both_come_back(tmp_path, store):
    study = study_of(
        store, pretrain__steps=5, federation__sites=3, federation__rounds=5, federation__quorum=0.5
    )  # fmt: skip
    with Loopback(tmp_path, study, HOSPITALS, wait=15) as loopback:
        share_store(loopback, store)
        # Through the proxy there is the fleet, and the fleet alone.
        assert loopback.answer("/health") == 200
        for path in ("/v1/control/list-runs", "/v1/control/start-run", "/v1/runtime/get-nodes", "/", "/docs"):
            assert loopback.answer(path) in (403, 404), path
        assert loopback.answer("/v1/fleet/pull-messages") not in (0, 403, 404)
        for site, name in enumerate(HOSPITALS):
            loopback.start_hospital(name, site)
        loopback.submit()
        loopback.wait_for_rounds(1, 180)
        loopback.kill("west")
        loopback.wait_for_rounds(2, 180)
        loopback.kill("server")
        loopback.start_hospital("west", 2)
        loopback.start_server()
        before = checkpoint.load(loopback.out / "checkpoint.pt")["rounds"]
        assert 2 <= len(before) < 5
        loopback.submit()
        events = loopback.wait_for_end(240)
    left_out = [event for event in events if event["event"] == "site left out"]
    assert {event["site"] for event in left_out} == {"west"}
    assert any(event["round"] == 2 for event in left_out)
    rounds = json.loads((loopback.out / "rounds.json").read_text())
    assert [each["round"] for each in rounds] == [1, 2, 3, 4, 5]
    assert rounds[0]["sites"] == rounds[-1]["sites"] == HOSPITALS
    assert rounds[1]["sites"] == ["north", "south"]
    # Down to the seconds that they took: they were not done again.
    assert rounds[: len(before)] == before
    assert (loopback.out / "encoder.safetensors").is_file()


def changed_installation(folder, before, after):
    """The package as a hospital may have changed it: what it answers is not what it learnt."""
    package = Path(mae_bench_federated.__path__[0])
    shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    module = folder / package.name / "site.py"
    text = module.read_text()
    assert text.count(before) == 1
    module.write_text(text.replace(before, after))
    return {"PYTHONPATH": str(folder)}


def test_strangers_are_refused_and_lies_left_out(tmp_path, store):
    answer = "return Report(after, "
    poison = {
        "nan": 'return Report({name: value * float("nan") for name, value in after.items()}, ',
        "huge": "return Report({name: value * value.dtype.type(1e6) for name, value in after.items()}, ",
    }
    hospitals = ["north", "nan", "huge", "other"]
    study = study_of(store, pretrain__steps=1, federation__sites=4, federation__rounds=1, federation__quorum=0.25)
    with Loopback(tmp_path / "study", study, hospitals, wait=20) as loopback:
        share_store(loopback, store)
        loopback.start_hospital("north", 0, key="stranger")
        stranger = loopback.running["north"]
        loopback.until(lambda: stranger.poll() is not None, 60, "a node with an unknown key is not refused")
        assert stranger.returncode != 0
        loopback.running.pop("north")
        loopback.start_hospital("north", 0)
        for site, name in ((1, "nan"), (2, "huge")):
            changed = changed_installation(tmp_path / name, answer, poison[name])
            loopback.start_hospital(name, site, environment=changed)
        loopback.start_hospital("other", 3, recipe="0123456789abcdef0123")
        loopback.submit()
        events = loopback.wait_for_end(240)
    reasons = {event["site"]: event["reason"] for event in events if event["event"] == "site left out"}
    assert set(reasons) == {"nan", "huge", "other"}
    assert "not finite" in reasons["nan"]
    assert reasons["huge"].startswith("outlier: its update is")
    assert f"recipe hash {study.key()} is not the one agreed on, 0123456789abcdef0123" in reasons["other"]
