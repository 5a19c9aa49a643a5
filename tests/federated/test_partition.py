"""Who has which case: every case has exactly one site, whatever is asked; what each way of dividing promises."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mae_bench.errors import InputError
from mae_bench.spec import Federation
from mae_bench_federated.partition import divide, kinds_of
from mae_bench_federated.shift import Shift, apply, shift_of, shifted
from mae_bench_federated.site import proximal, sites_of
from tests.federated.sites import finetune_job, pretrain_job


def cases_of(subjects, scans=1):
    """`scans` cases of each subject, with a label that every third subject shares."""
    cases = [f"c{subject:03}-{scan}" for scan in range(scans) for subject in range(subjects)]
    subject = {case: case.partition("-")[0] for case in cases}
    return cases, subject, {case: int(case[1:4]) % 3 for case in cases}


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 3), st.integers(1, 8), st.sampled_from(["iid", "dirichlet", "sizes"]),
    st.floats(0.01, 100), st.integers(0, 2**31),
)  # fmt: skip
def test_every_case_has_exactly_one_site(subjects, scans, sites, partition, alpha, seed):
    cases, subject, kind = cases_of(subjects, scans)
    federation = Federation(sites=sites, partition=partition, alpha=alpha, partition_seed=seed)
    if subjects < sites:
        with pytest.raises(InputError, match="cannot be shared"):
            divide(cases, subject, kind, federation)
        return
    found = divide(cases, subject, kind, federation)
    assert sorted(case for own in found for case in own) == sorted(cases)
    assert all(found)
    # No one is a patient of two sites, and the order of the cases is kept.
    owners = [{subject[case] for case in own} for own in found]
    assert sum(map(len, owners)) == subjects
    assert all(list(own) == [case for case in cases if case in set(own)] for own in found)
    assert found == divide(cases, subject, kind, federation)


def test_iid_sizes_differ_by_one_at_most_and_seeds_differ():
    cases, subject, kind = cases_of(22)
    found = [divide(cases, subject, kind, Federation(sites=4, partition_seed=seed)) for seed in (0, 1)]
    assert {len(own) for own in found[0]} == {5, 6}
    assert found[0] != found[1]


@pytest.mark.parametrize("partition", ["dirichlet", "sizes"])
def test_a_small_alpha_is_uneven(partition):
    cases, subject, kind = cases_of(300)
    spread = {}
    for alpha in (0.1, 100.0):
        found = divide(cases, subject, kind, Federation(sites=4, partition=partition, alpha=alpha))
        counts = np.array([[sum(kind[case] == one for case in own) for one in range(3)] for own in found])
        shares = counts / counts.sum(0)
        spread[alpha] = shares.std(0).mean()
    assert spread[0.1] > 0.2 > 0.1 > spread[100.0]


def test_natural_sites_are_in_the_names():
    cases = [f"{centre}_{number:03}" for centre in ("TCIA01", "TCIA02", "CBICA") for number in range(4)]
    subject, kind = {case: case for case in cases}, dict.fromkeys(cases, 0)
    three = divide(cases, subject, kind, Federation(sites=3, partition="natural"))
    assert sorted({case.split("_")[0] for case in own}.pop() for own in three) == ["CBICA", "TCIA01", "TCIA02"]
    two = divide(cases, subject, kind, Federation(sites=2, partition="natural"))
    assert sorted(map(len, two)) == [4, 8]
    with pytest.raises(InputError, match="tell 3 sites, not 4"):
        divide(cases, subject, kind, Federation(sites=4, partition="natural"))
    numbered = [f"img{number:04}" for number in range(6)]
    with pytest.raises(InputError, match="tell 1 sites"):
        divide(numbered, dict(zip(numbered, numbered, strict=True)), {}, Federation(sites=2, partition="natural"))


def test_a_site_has_the_same_subjects_in_all_stages(tmp_path):
    """Labelled or not; and selection cases of its own, where there are enough."""
    federation = {"federation__sites": 2, "federation__stages": "both", "federation__partition": "dirichlet"}
    before = pretrain_job(tmp_path / "store", tmp_path / "a", **federation)
    after = finetune_job(tmp_path / "store", tmp_path / "b", **federation)
    assert sites_of(before, before.cases) == sites_of(after, before.cases)
    own = sites_of(after, after.selection)
    assert sorted(case for cases in own for case in cases) == sorted(after.selection)


def stub(partition, names, sites=8):
    """A hundred and more cases with their amounts, as far as a partition looks at them."""
    rng = np.random.default_rng(0)
    labels = {name: (rng.random(1000) < rng.uniform(0.01, 0.5)).astype(np.uint8) for name in names}
    facts = {
        name: SimpleNamespace(subject=name, labelled=True, points={"foreground": (0, 1), "1": (0, 1)}) for name in names
    }
    prepared = SimpleNamespace(facts=facts, case=lambda name: SimpleNamespace(label=lambda: labels[name]))
    federation = Federation(sites=sites, partition=partition, alpha=0.3)
    spec, task = SimpleNamespace(federation=federation), SimpleNamespace(kind="segmentation")
    return SimpleNamespace(spec=spec, task=task, prepared=prepared)


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "sizes"])
def test_selection_cases_move_nobody(partition):
    """A fine-tuning looks at them and a pre-training does not: sites are the same hospitals in both."""
    train, selection = [f"t{number:03}" for number in range(315)], [f"v{number:02}" for number in range(48)]
    job = stub(partition, [*train, *selection])
    job.cases = job.train = train
    before = sites_of(job, train)
    job.selection = selection
    assert sites_of(job, train) == before
    assert sorted(case for own in sites_of(job, selection) for case in own) == selection


def test_natural_sites_are_the_same_hospitals_in_selection():
    """Whatever their sizes there; a hospital without selection cases is no fault."""
    train = [*(f"A_{n:03}" for n in range(30)), *(f"B_{n:03}" for n in range(20)), *(f"C_{n:03}" for n in range(10))]
    selection = ["B_900", "B_901", "C_900", "C_901", "C_902", "D_900"]
    job = stub("natural", [*train, *selection], sites=3)
    job.cases = job.train = train
    job.selection = selection
    assert sites_of(job, selection) == ((), ("B_900", "B_901"), ("C_900", "C_901", "C_902", "D_900"))


def test_the_proximal_term_is_the_gradient_of_its_penalty():
    """Li et al. 2020, equation 2: mu (w - w0), on top of the loss's own gradient."""
    module = nn.Linear(3, 2)
    start = {name: np.full(tuple(value.shape), 0.5, np.float32) for name, value in module.named_parameters()}
    x = torch.randn(4, 3)
    module(x).square().mean().backward()
    plain = {name: each.grad.clone() for name, each in module.named_parameters()}
    module.zero_grad()
    with proximal(module, start, 0.3, 1):
        module(x).square().mean().backward()
    for name, each in module.named_parameters():
        torch.testing.assert_close(each.grad, plain[name] + 0.3 * (each.detach() - 0.5))


def test_kinds_are_thirds_of_the_labelled_amount(tmp_path):
    job = pretrain_job(tmp_path / "store", tmp_path / "a")
    kinds = kinds_of(job.prepared, list(job.cases), job.task)
    assert {kind[1] for kind in kinds.values()} == {0, 1, 2}


def test_a_scanner_is_its_sites_own():
    federation = Federation(sites=3, intensity_shift=0.2, blur_shift=1.5)
    shifts = [shift_of(federation, site) for site in range(3)]
    assert len(set(shifts)) == 3
    assert all(0.8 <= shift.scale <= 1.2 and abs(shift.offset) <= 0.2 and 0 <= shift.sigma <= 1.5 for shift in shifts)
    assert shifts == [shift_of(federation, site) for site in range(3)]
    assert shift_of(Federation(sites=3), 1) == Shift()


def test_shifted_images_keep_their_air():
    images = np.random.default_rng(0).normal(size=(2, 1, 8, 8, 8)).astype(np.float16)
    images[:, :, :2] = 0
    found = apply(images, Shift(1.5, 0.25, 0.0), 3)
    assert found.dtype == np.float16
    assert not found[:, :, :2].any()
    np.testing.assert_allclose(found[:, :, 2:], images[:, :, 2:].astype(np.float32) * 1.5 + 0.25, atol=4e-3)
    blurred = apply(images, Shift(sigma=1.0), 3)
    assert blurred[:, :, 3:].std() < 0.7 * images[:, :, 3:].std()
    assert apply(np.full((1, 1, 4, 4), 6e4, np.float16), Shift(1.9), 2).max() == np.finfo(np.float16).max
    batch = lambda step: None  # noqa: E731
    assert shifted(batch, Shift(), 3) is batch
