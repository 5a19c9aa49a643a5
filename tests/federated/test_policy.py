"""What crosses between a site and the server, and what is done with answers that should not count."""

import math

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict

from mae_bench.engine.rounds import bounds
from mae_bench.errors import RunFailed, UsageError
from mae_bench.spec import Federation
from mae_bench_federated import privacy, weights
from mae_bench_federated.client_app import REFUSED
from mae_bench_federated.grids.base import be_server
from mae_bench_federated.grids.local import LocalGrid
from mae_bench_federated.messages import Malformed, Report, check_arrays, write_report
from mae_bench_federated.policy import judge
from mae_bench_federated.rounds import run_rounds
from mae_bench_federated.simulate import course_of
from mae_bench_federated.site import Workplace
from mae_bench_federated.study import make_study, read_study
from tests.federated.sites import make_cell_of, pretrain_job

MOCO = {"backbone": "resnet18", "head": "linear", "pretrain__batch": 4, "pretrain__queue": 64, "pretrain__hidden": 32}
SETTINGS = {"pretrain__steps": 3, "pretrain__batch": 1, "federation__sites": 3, "federation__rounds": 3}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


class Meddled(LocalGrid):
    """A grid on which somebody listens, and changes what site 1 answers in its second round, or in all of them."""

    def __init__(self, place, change=lambda reply: reply, rounds=(2,)):
        super().__init__(place)
        self.node_config["wire"] = True
        self.change, self.rounds, self.seen = change, rounds, []

    def answer(self, messages, timeout):
        self.seen += messages
        for reply in super().answer(messages, timeout):
            number = messages[0].content["config"]["server-round"]
            if self.site_of(messages[0]) <= 1 and reply.metadata.src_node_id == 3 and number in self.rounds:
                reply = self.change(reply)
            if reply is not None:
                self.seen.append(reply)
                yield reply


def share(store, folder, change=lambda reply: reply, rounds=(2,), pretraining="mae", **settings):
    job = pretrain_job(store, folder, pretraining, **{**SETTINGS, **settings})
    place = Workplace.simulated(job)
    grid = Meddled(place, change, rounds)
    try:
        return run_rounds(course_of(place), grid), grid, job
    finally:
        grid.close()


@pytest.mark.parametrize(("pretraining", "private"), [("mae", {}), ("moco", MOCO)])
def test_only_weights_counts_and_losses_leave_a_site(tmp_path, store, pretraining, private):
    """Every message of a run, both ways, byte for byte: nothing but what is named, and as much as the weights are."""
    more = {"pretrain__steps": 2, "federation__rounds": 2} | private
    _, grid, job = share(store, tmp_path, pretraining=pretraining, **more)
    state = job.module.state_dict()
    names = weights.federated_names(job.module)
    assert {name for name in state if "queue" in name}.isdisjoint(names)
    orders = [message for message in grid.seen if message.metadata.src_node_id == 1]
    replies = [message for message in grid.seen if message.metadata.src_node_id != 1]
    assert len(orders) == len(replies) == 3 * 2
    for message in orders:
        assert set(message.content) == {"arrays", "config"}
        assert set(message.content["config"]) == {"server-round", "stage", "start", "stop"}
    for message in replies:
        assert set(message.content) == {"arrays", "metrics"}
        assert set(message.content["metrics"]) == {"num-examples", "losses"}
        assert len(message.content["metrics"]["losses"]) == 1
    for message in grid.seen:
        arrays = message.content["arrays"]
        assert list(arrays) == names
        assert all(arrays[name].shape == tuple(state[name].shape) for name in names)
        size = sum(len(array.data) for array in arrays.values())
        assert size - 128 * len(names) <= sum(state[name].nbytes for name in names) <= size


def arrays_of(reply, change):
    reply.content["arrays"] = weights.pack(
        {name: change(name, array.numpy()) for name, array in reply.content["arrays"].items()}, wire=True
    )
    return reply


def without_one(reply):
    del reply.content["arrays"][next(iter(reply.content["arrays"]))]
    return reply


def with_metric(name, value):
    def change(reply):
        reply.content["metrics"][name] = value
        return reply

    return change


def with_record(name, record):
    def change(reply):
        reply.content[name] = record
        return reply

    return change


WEIGHTS = {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)}
LEFT_OUT = [
    (lambda reply: arrays_of(reply, lambda name, value: value * np.float32("nan")), "not finite"),
    (lambda reply: arrays_of(reply, lambda name, value: value * np.float32(1e6)), "outlier"),
    (lambda reply: arrays_of(reply, lambda name, value: value[None]), "another shape"),
    (lambda reply: arrays_of(reply, lambda name, value: value.astype(np.int64)), "not of floating point"),
    (without_one, "1 weights are missing"),
    (with_metric("age", 71), "no other"),
    (with_metric("num-examples", 0), "no number of cases"),
    (with_metric("num-examples", 2.5), "no number of cases"),
    (with_metric("losses", [0.1, 0.2]), "not one per step"),
    (with_metric("losses", [math.inf]), "not finite"),
    (with_record("note", ConfigRecord({"name": "Smith"})), "no other"),
    (with_record("metrics", ArrayRecord()), "another kind of record"),
    (lambda reply: None, "no answer before the deadline"),
    (lambda reply: failed(reply, Error(5, "gone")), "dead"),
    (lambda reply: failed(reply, Error(8, "gone")), "crashed"),
    (lambda reply: failed(reply, Error(REFUSED, "refused: " + 1000 * "x")), "failed: refused: xxx"),
]


def failed(reply, error):
    """An error in the place of a reply."""
    answer = Message(error, reply_to=reply)
    answer.metadata.__dict__["_reply_to_message_id"] = reply.metadata.reply_to_message_id
    return answer


@pytest.mark.parametrize(("change", "reason"), LEFT_OUT, ids=[reason for _, reason in LEFT_OUT])
def test_what_does_not_count_is_left_out_by_name(change, reason):
    """Three answers, the second of which is not as it must be."""
    be_server()
    asked, replies = {}, []
    for site in range(3):
        order = Message(RecordDict(), dst_node_id=site + 2, message_type="train")
        order.metadata.__dict__["_message_id"] = f"m{site}"
        asked[f"m{site}"] = f"site {site}"
        learnt = {name: value + np.float32(0.1 * (site + 1)) for name, value in WEIGHTS.items()}
        reply = write_report(Report(learnt, 5, [0.25]), order, wire=True)
        replies.append(change(reply) if site == 1 else reply)
    answers = judge(asked, [reply for reply in replies if reply is not None], 1, WEIGHTS, 10.0, lambda report: report)
    assert list(answers.reports) == ["site 0", "site 2"]
    assert list(answers.dropped) == ["site 1"]
    assert reason in answers.dropped["site 1"]
    assert len(answers.dropped["site 1"]) < 250


@pytest.mark.parametrize(("change", "reason"), [LEFT_OUT[0], LEFT_OUT[12]], ids=["not finite", "no answer"])
def test_who_was_left_out_is_back_in_the_next_round(tmp_path, store, change, reason):
    account, _, _ = share(store, tmp_path, change)
    (event,) = account.history.events
    assert {key: event[key] for key in ("event", "round", "site", "stage")} == {
        "event": "site left out", "round": 2, "site": "site 1", "stage": "pretrain",
    }  # fmt: skip
    assert reason in event["reason"]
    assert [each["sites"] for each in account.rounds] == [
        ["site 0", "site 1", "site 2"], ["site 0", "site 2"], ["site 0", "site 1", "site 2"],
    ]  # fmt: skip


def test_a_missed_quorum_fails_after_three_tries(tmp_path, store):
    with pytest.raises(RunFailed, match=r"round 2: too few sites answered, 3 times: site 1: no answer"):
        share(store, tmp_path, lambda reply: None, federation__quorum=1.0)


def test_a_site_checks_what_it_is_asked(tmp_path, store):
    """An order for other steps, another stage, another model or a term that was not agreed on is refused."""
    place = Workplace.simulated(pretrain_job(store, tmp_path, **SETTINGS))
    grid = LocalGrid(place)
    whole = weights.take(place.job.module)
    config = {"server-round": 1, "stage": "pretrain", "start": 0, "stop": 1}
    wrong = {
        "not agreed on": {**config, "stage": "finetune"},
        "steps 0 to 99": {**config, "stop": 99},
        "steps 1 to 1": {**config, "start": 1},
        "proximal term": {**config, "proximal-mu": 0.5},
        "missing, unknown": {**config, "path": "/etc"},
    }
    for text, given in wrong.items():
        assert text in ask(grid, whole, given)
    first = next(iter(whole))
    assert "another model" in ask(grid, {name: value for name, value in whole.items() if name != first}, config)
    assert "another shape" in ask(grid, whole | {first: whole[first][None]}, config)
    grid.close()


def ask(grid, arrays, config):
    content = RecordDict({"arrays": weights.pack(arrays, wire=True), "config": ConfigRecord(config)})
    (reply,) = grid.send_and_receive([Message(content, dst_node_id=2, message_type="train")])
    assert reply.error.code == REFUSED
    return reply.error.reason


def test_rounds_cover_all_steps_once():
    for steps, rounds in ((10, 3), (7, 7), (100, 9)):
        parts = [bounds(number, rounds, steps) for number in range(1, rounds + 1)]
        assert [step for start, stop in parts for step in range(start, stop)] == list(range(steps))


@pytest.mark.parametrize("where", ["central", "local"])
def test_privacy_is_accounted_for_and_repeats(tmp_path, store, where):
    settings = {
        "pretrain__steps": 2, "federation__sites": 2, "federation__rounds": 2, "federation__privacy": where,
        "federation__clip": 0.1, "federation__noise": 2.0,
    }  # fmt: skip
    runs = [share(store, tmp_path / name, **settings) for name in "ab"]
    event = runs[0][0].history.events[-1]
    assert event["event"] == "privacy"
    assert event["accountant"].startswith("opacus")
    assert event["epsilon"] == pytest.approx(gaussian_epsilon(2.0 / (2 if where == "local" else 1), 2, 1e-5), rel=0.3)
    states = [job.module.state_dict() for _, _, job in runs]
    assert all((value == states[1][name]).all() for name, value in states[0].items())


def gaussian_epsilon(noise, rounds, delta):
    """Upper bound by Renyi divergence, order by order (Mironov 2017, propositions 3 and 7, theorem 21)."""
    orders = np.arange(1.01, 200, 0.01)
    return float((rounds * orders / (2 * noise**2) + np.log(1 / delta) / (orders - 1)).min())


def test_clipping_and_noise_are_as_large_as_they_say():
    rng = np.random.default_rng(0)
    old = {"w": rng.normal(size=(300, 300)).astype(np.float32)}
    new = {"w": old["w"] + rng.normal(size=(300, 300)).astype(np.float32)}
    clipped = privacy.clip(new, old, 0.5)
    assert np.linalg.norm(clipped["w"] - old["w"]) == pytest.approx(0.5, rel=1e-3)
    assert privacy.clip(old, old, 0.5)["w"] is old["w"]
    federation = Federation(sites=4, privacy="local", clip=0.5, noise=3.0)
    hidden = privacy.hide(new, old, federation, rng)
    assert (hidden["w"] - clipped["w"]).std() == pytest.approx(1.5, rel=0.02)
    assert privacy.deviation(federation, 4) == pytest.approx(0.375)
    assert privacy.add_noise({"bn.running_var": np.zeros(9, np.float32)}, 1.0, rng)["bn.running_var"].min() == 0


def test_a_study_is_without_images_and_has_one_hash(store):
    settings = SETTINGS | {"federation__deadline": 60}
    cell = make_cell_of(store, "mae", **settings)
    study = make_study(cell.spec, cell.data.task)
    assert study.spec.data.fingerprint == ""
    assert cell.data.prepared.fingerprint not in study.text()
    other = make_cell_of(store, "mae", **settings | {"pretrain__lr": 1e-4})
    assert make_study(other.spec, other.data.task).key() != study.key()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "--deadline"),
        ({"federation__deadline": 60, "federation__blur_shift": 1.0}, "patients' images"),
        ({"federation__deadline": 60, "federation__strategy": "krum", "federation__malicious": 1}, "needs 5 sites"),
        ({"federation__deadline": 60, "federation__strategy": "trimmed-mean"}, "cuts nothing"),
        ({"federation__deadline": 60, "federation__privacy": "central", "federation__strategy": "fedadam"}, "mean"),
    ],
)
def test_a_study_that_hospitals_should_not_run_is_refused(store, settings, told):
    cell = make_cell_of(store, "mae", **SETTINGS | settings)
    with pytest.raises(UsageError, match=told):
        make_study(cell.spec, cell.data.task)


def test_a_study_of_another_version_is_refused(store):
    cell = make_cell_of(store, "mae", **SETTINGS | {"federation__deadline": 60})
    study = make_study(cell.spec, cell.data.task)
    other = study.model_copy(update={"version": "0.0.1"})
    assert read_study(study.text(), study.key()) == study
    with pytest.raises(Malformed, match=r"of mae-bench 0\.0\.1"):
        read_study(other.text(), other.key())


@pytest.mark.parametrize("dtype", [">f4", np.float64, np.float16, np.longdouble])
def test_another_precision_than_agreed_is_malformed(dtype):
    now = {"b": np.zeros(2, np.float32), "a": np.ones((2, 2), np.float32)}
    good = {"a": np.full((2, 2), 2, np.float32), "b": np.ones(2, np.float32)}
    assert list(check_arrays(good, now, half=False)) == ["b", "a"]
    with pytest.raises(Malformed, match="not float32"):
        check_arrays(good | {"a": good["a"].astype(dtype)}, now, half=False)


def test_a_mean_that_somebody_missed_is_still_over_those_asked():
    """Central privacy: the divisor must not tell who was there."""
    old = {"w": np.zeros(3, np.float32)}
    federation = Federation(sites=4, privacy="central", clip=10.0)
    told = privacy.equal_and_clipped([Report({"w": np.full(3, 2, np.float32)}, 7, [0.1])], old, federation, 4)
    assert np.mean([report.arrays["w"] for report in told], axis=0) == pytest.approx([0.5, 0.5, 0.5])
    assert {report.cases for report in told} == {1}
