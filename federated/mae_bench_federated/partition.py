"""Which cases a simulated site has, as pure functions of the cases and a seed.

Subjects are divided, not cases: no one is a patient of two sites. Every case belongs to exactly one site, and every
site keeps its cases in the order in which they came.
"""

import re
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from mae_bench.data.prepared import Prepared
from mae_bench.errors import InputError
from mae_bench.spec import Federation
from mae_bench.task import Task

BURDENS = 3  # classes of cases by how much is labelled, where there are no findings

Sites = tuple[tuple[str, ...], ...]


def divide(
    cases: Sequence[str],
    subject: Mapping[str, str],
    kind: Mapping[str, Hashable],
    federation: Federation,
    *,
    known: Mapping[str, int] | None = None,
) -> Sites:
    """Cases of each site.

    Args:
        cases: what is divided.
        subject: whose case it is.
        kind: label or lesion mix of a case, for `dirichlet`.
        federation: sites, partition, alpha, partition_seed.
        known: site of each subject that was divided before; a site may then be left without one of these, and `natural`
            puts subjects where their like are.

    Raises:
        InputError: fewer subjects than sites, or the data know no sites.
    """
    subjects = list(dict.fromkeys(subject[case] for case in cases))
    if known is None and len(subjects) < federation.sites:
        raise InputError(
            f"{len(subjects)} subjects cannot be shared by {federation.sites} sites", "lower --sites, or use more data"
        )
    how = {"iid": iid, "sizes": sizes, "natural": natural}.get(federation.partition)
    if known is not None and federation.partition == "natural":
        place = beside(subjects, known)
    elif how is None:
        first = {subject[case]: kind[case] for case in reversed(cases)}
        place = dirichlet(subjects, first, federation)
    else:
        place = how(subjects, federation)
    if known is None:
        _fill(place, federation.sites)
    return tuple(tuple(case for case in cases if place[subject[case]] == site) for site in range(federation.sites))


def iid(subjects: Sequence[str], federation: Federation) -> dict[str, int]:
    """Site of each subject: shuffled, then dealt out, so that sizes differ by one at most."""
    order = np.random.default_rng([federation.partition_seed, len(subjects)]).permutation(len(subjects))
    return {subjects[int(row)]: place % federation.sites for place, row in enumerate(order)}


def sizes(subjects: Sequence[str], federation: Federation) -> dict[str, int]:
    """Site of each subject: shares of the sites from Dirichlet(alpha), whatever the labels."""
    return dirichlet(subjects, dict.fromkeys(subjects, 0), federation)


def dirichlet(subjects: Sequence[str], kind: Mapping[str, Hashable], federation: Federation) -> dict[str, int]:
    """Site of each subject: of each kind, shares of the sites from Dirichlet(alpha) (Hsu et al. 2019, section 3).

    The shares of a kind depend on the seed and the kind alone: training and validation cases of a site are alike.
    """
    place = {}
    kinds = sorted({kind[subject] for subject in subjects}, key=repr)
    for one in kinds:
        members = [subject for subject in subjects if kind[subject] == one]
        named = list(repr(one).encode())
        rng = np.random.default_rng([federation.partition_seed, *named])
        ends = np.cumsum(rng.dirichlet([federation.alpha] * federation.sites)) * len(members)
        for rank, row in enumerate(rng.permutation(len(members))):
            place[members[int(row)]] = min(int(np.searchsorted(ends, rank + 0.5)), federation.sites - 1)
    return place


def natural(subjects: Sequence[str], federation: Federation) -> dict[str, int]:
    """Site of each subject: by its name without the number at the end (`TCIA01_131` and `TCIA01_147` are together).

    When the data know more sites than were asked for, the largest are dealt out first, each to the smallest so far.

    Raises:
        InputError: the names tell fewer sites than were asked for.
    """
    prefix = {subject: _prefix(subject) for subject in subjects}
    groups = sorted(set(prefix.values()), key=lambda name: (-list(prefix.values()).count(name), name))
    if len(groups) < federation.sites:
        raise InputError(
            f"partition natural: subjects such as {subjects[0]!r} tell {len(groups)} sites, not {federation.sites}",
            "lower --sites, or choose --partition iid, dirichlet or sizes",
        )
    counts, site = [0] * federation.sites, {}
    for group in groups:
        site[group] = counts.index(min(counts))
        counts[site[group]] += list(prefix.values()).count(group)
    return {subject: site[prefix[subject]] for subject in subjects}


def beside(subjects: Sequence[str], known: Mapping[str, int]) -> dict[str, int]:
    """Site of each subject: that of the subjects named like it; of a name that nobody has, the smallest site."""
    sites = list(known.values())
    smallest = min(sorted(set(sites)), key=sites.count)
    where = {_prefix(subject): site for subject, site in known.items()}
    return {subject: where.get(_prefix(subject), smallest) for subject in subjects}


def _prefix(subject: str) -> str:
    """Without the numbers at the end that are set apart, or else without the digits there."""
    shorter = re.sub(r"([-_.]\d+)+$", "", subject)
    return shorter if shorter != subject else re.sub(r"\d+$", "", subject)


def _fill(place: dict[str, int], sites: int) -> None:
    """Give sites without a subject one from the largest site, in place."""
    members: dict[int, list[str]] = {site: [] for site in range(sites)}
    for subject, site in place.items():
        members[site].append(subject)
    for empty in [site for site in range(sites) if not members[site]]:
        largest = max(range(sites), key=lambda site: len(members[site]))
        moved = sorted(members[largest])[-1]
        members[largest].remove(moved)
        members[empty].append(moved)
        place[moved] = empty


def kinds_of(prepared: Prepared, cases: Sequence[str], task: Task, more: Sequence[str] = ()) -> dict[str, Hashable]:
    """Label or lesion mix of each case: its findings, or the labels it has and how much of the image they fill.

    Amounts and survival times count in thirds of `cases`, so that there are cases of each; those of `more` are put
    into the same thirds, and do not move their ends.
    """
    facts = {case: prepared.facts[case] for case in (*cases, *more)}
    if task.kind == "classification":
        return {case: each.findings for case, each in facts.items()}
    survival = task.kind == "survival"
    amounts = {case: each.findings[0] if survival else _filled(prepared, case) for case, each in facts.items()}
    order = sorted((amounts[case], case) for case in cases)
    ranks = {case: min(bisect_left(order, (amounts[case], case)), len(cases) - 1) for case in facts}
    return {
        case: (
            each.findings[1:] if survival else tuple(sorted(set(each.points) - {"foreground"})),
            ranks[case] * BURDENS // len(cases),
        )
        for case, each in facts.items()
    }


def _filled(prepared: Prepared, case: str) -> float:
    """Share of a case's voxels that are labelled; 0 without a label."""
    if not prepared.facts[case].labelled:
        return 0.0
    label = prepared.case(case).label()
    return float(np.count_nonzero(label)) / label.size
