"""Raw files to prepared arrays, once: checked, reoriented, cropped, resampled, normalised, written whole or not at all.

Threads, not processes: decoding, hashing and array arithmetic release the interpreter lock, so two threads keep two
cores busy, and at most `workers` cases are in memory.
"""

import json
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mae_bench.data.checks import faults
from mae_bench.data.prepared import CaseFacts, Prepared
from mae_bench.data.preprocess import apply_preprocessing, crop_centres
from mae_bench.errors import InputError
from mae_bench.interfaces import Dataset, Layout, RawCase, RawImage
from mae_bench.store import Store, write_bytes, writing_folder
from mae_bench.task import Preprocessing, Task
from mae_bench.values import Options, digest

FORMAT = 2  # raise when prepared arrays change meaning
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Progress = Callable[[int, int], None]
T = TypeVar("T")


def prepare(
    dataset: Dataset,
    options: Options,
    root: Path,
    layout: Layout,
    task: Task,
    preprocessing: Preprocessing,
    store: Store,
    *,
    skip_bad: bool = False,
    progress: Progress = lambda done, total: None,
    workers: int | None = None,
) -> Prepared:
    """Prepare every case under `root`, or find them prepared.

    Raises:
        InputError: some cases cannot be used (after all were checked, with a line for each) and not `skip_bad`; or
            none can.
    """
    source = _Source(dataset, options, root, layout, task, preprocessing)
    key = source.key()
    # Looked at before the lock is taken, so that a finished store can be used from a read-only disk.
    stage = store.finished("prepared", key)
    if stage is None:
        with store.claim("prepared", key):
            stage = store.finished("prepared", key) or _prepare_all(source, store, key, progress, workers)
            # Only a complete set is declared finished; the good cases of others are found again by their own keys.
            if stage["cases"] and (skip_bad or not stage["problems"]):
                store.finish("prepared", key, stage)
    prepared = Prepared(store.folder("prepared", key), stage)
    if prepared.problems and not (skip_bad and prepared.facts):
        raise InputError(
            f"{len(prepared.problems)} of {len(layout.cases) + len(layout.problems)} cases in {root} cannot be used",
            "mend or remove them" + (", or add --skip-bad to leave them out" if prepared.facts else ""),
            [prepared.problems[case] for case in sorted(prepared.problems)],
        )
    if not prepared.facts:
        raise InputError(f"{root}: no cases", f"`mae-bench data status {dataset.name}` says what is expected there")
    return prepared


def check_all(
    dataset: Dataset, root: Path, layout: Layout, task: Task, progress: Progress = lambda done, total: None
) -> dict[str, str]:
    """Read and check every case, storing nothing. Returns what is wrong with those that cannot be used."""
    _, problems = _each_case(lambda case: read_checked(dataset, root, case, task), layout, progress, None)
    return problems


def read_checked(dataset: Dataset, root: Path, case: RawCase, task: Task) -> RawImage:
    """Read one case. Raises InputError with every fault that was found."""
    if not SAFE_ID.fullmatch(case.id):
        raise InputError(f"{case.images[0]}: {case.id!r} cannot name a folder; rename the file")
    raw = dataset.read(case, root)
    if found := faults(raw, case, task):
        raise InputError(f"case {case.id}", problems=found)
    return raw


def _each_case(
    work: Callable[[RawCase], T], layout: Layout, progress: Progress, workers: int | None
) -> tuple[dict[str, T], dict[str, str]]:
    """Do `work` for every case in threads. Returns results and faults by case; other errors end it at once."""
    results: dict[str, T] = {}
    problems = dict(layout.problems)
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        jobs = {pool.submit(work, case): case.id for case in layout.cases}
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                try:
                    results[jobs[job]] = job.result()
                except InputError as error:
                    problems[jobs[job]] = "; ".join(error.problems) or str(error)
                progress(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results, problems


@dataclass(frozen=True)
class _Source:
    """All that prepared arrays depend on, and the addresses that follow from it."""

    dataset: Dataset
    options: Options
    root: Path
    layout: Layout
    task: Task
    preprocessing: Preprocessing

    def case_key(self, case: RawCase) -> str:
        """Address of one prepared case: names, sizes and times of its files, so that no file is read to look it up."""
        files = []
        for path in (*case.images, *([case.label] if case.label else [])):
            try:
                state = (self.root / path).stat()
                files.append((str(path), state.st_size, state.st_mtime_ns))
            except OSError:
                files.append((str(path), -1, -1))
        return digest(
            {
                "format": FORMAT,
                "dataset": self.dataset.name,
                "options": self.options.model_dump(mode="json"),
                "root": str(self.root.resolve()),
                "case": (case.id, case.subject, case.findings),
                "files": files,
                "labels": sorted(self.task.labels),
                "channels": self.task.channels,
                "preprocessing": self.preprocessing.model_dump(mode="json"),
            }
        )

    def key(self) -> str:
        """Address of the whole set."""
        return digest([sorted(map(self.case_key, self.layout.cases)), self.layout.problems])


def _prepare_all(source: _Source, store: Store, key: str, progress: Progress, workers: int | None) -> dict[str, Any]:
    scratch = store.folder("prepared", key)
    for left in scratch.glob(".*.tmp"):  # by a run that was killed: this one holds the lock
        shutil.rmtree(left, ignore_errors=True)
    facts, problems = _each_case(
        lambda case: _prepare_case(source, case, store.folder("prepared", "cases"), scratch),
        source.layout,
        progress,
        workers,
    )
    cases = [facts[case].model_dump(mode="json") for case in sorted(facts)]
    return {
        "fingerprint": digest([(case["id"], case["sha256"], case["subject"], case["findings"]) for case in cases]),
        "problems": problems,
        "cases": cases,
    }


def _prepare_case(source: _Source, case: RawCase, cases: Path, scratch: Path) -> CaseFacts:
    key = source.case_key(case)
    folder = cases / key
    if (folder / "case.json").is_file():
        return CaseFacts.model_validate_json((folder / "case.json").read_bytes())
    raw = read_checked(source.dataset, source.root, case, source.task)
    image, label, geometry_facts = apply_preprocessing(raw, source.preprocessing)
    if not image.any():
        window = f"[{source.preprocessing.intensity.low}, {source.preprocessing.intensity.high}]"
        raise InputError(f"{case.images[0]}: every voxel lies below the window {window}")
    points, ranges = crop_centres(image, label, case.id)
    facts = CaseFacts(
        id=case.id,
        folder=key,
        subject=case.subject,
        sha256=raw.sha256,
        affine=None if raw.affine is None else tuple(tuple(float(x) for x in row) for row in raw.affine),
        labelled=label is not None,
        points=ranges,
        findings=case.findings,
        **geometry_facts,
    )
    with writing_folder(folder, scratch) as temporary:
        _write_array(temporary / "image.npy", image.astype(np.float16))
        if label is not None:
            _write_array(temporary / "label.npy", label)
        _write_array(temporary / "points.npy", points)
        write_bytes(temporary / "case.json", json.dumps(facts.model_dump(mode="json")).encode())
    return facts


def _write_array(path: Path, array: NDArray[Any]) -> None:
    # Through the file object, not ndarray.tofile, so that a full disk is reported as one.
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(np.ascontiguousarray(array).data)
        file.flush()
        os.fsync(file.fileno())
