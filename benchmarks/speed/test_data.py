"""Preparing 20 BraTS-sized volumes and drawing crops from them, ours beside MONAI's data sets, one run.

`nox -s speed -- -k data` prints what preparing cost each, how many times as long each takes per crop, and the memory
each holds on to. Cases are 4 x 240 x 240 x 155 int16 in gzipped NIfTI, a brain-sized blob in air, crops 128^3.
"""

import time
from itertools import count

import numpy as np
import pytest
import torch

from benchmarks.speed.interleaved import compare
from mae_bench.data.crops import Crops
from mae_bench.data.decathlon import save_nifti, write_description
from mae_bench.data.source import open_data
from mae_bench.engine.device import keep_freed_memory
from mae_bench.store import Store
from mae_bench_plugins.datasets.brats import BraTS, BraTSOptions

CASES, CROPS, ROI = 20, 8, (128, 128, 128)
LABELS = {1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A folder in the layout of MSD Task01."""
    root = tmp_path_factory.mktemp("Task01")
    rng = np.random.default_rng(0)
    shape = (240, 240, 155)
    axes = np.ogrid[tuple(slice(-1, 1, complex(0, size)) for size in shape)]
    brain = (axes[0] / 0.58) ** 2 + (axes[1] / 0.7) ** 2 + (axes[2] / 0.85) ** 2 < 1
    label = np.where((axes[0] - 0.2) ** 2 + axes[1] ** 2 + axes[2] ** 2 < 0.03, 1, 0).astype(np.uint8)
    image = np.where(brain[..., None], rng.normal(600, 80, (*shape, 4)), 0).astype(np.int16)
    cases = [f"BRATS_{number:03d}" for number in range(CASES)]
    for number, case in enumerate(cases):
        save_nifti(root / "imagesTr" / f"{case}.nii.gz", np.roll(image, number, axis=0), np.eye(4))
        save_nifti(root / "labelsTr" / f"{case}.nii.gz", np.roll(label, number, axis=0), np.eye(4))
    write_description(root, "speed", ["FLAIR", "T1w", "T1gd", "T2w"], LABELS, cases)
    return root


def monai_pipeline():
    """The same preparation and the same kind of crop in MONAI's transforms."""
    from monai import transforms as t

    both = ["image", "label"]
    return t.Compose(
        [
            t.LoadImaged(both),
            t.EnsureChannelFirstd(both),
            t.Orientationd(both, axcodes="RAS"),
            t.CropForegroundd(both, source_key="image", allow_smaller=True),
            t.NormalizeIntensityd("image", nonzero=True, channel_wise=True),
            t.RandSpatialCropd(both, ROI, random_size=False),
        ]
    )


def held_mb():
    """Memory this process holds for itself (not the page cache), MB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024


def timed(name, work):
    """Run `work`, print how long it took and what memory it left in use."""
    before, began = held_mb(), time.perf_counter()
    result = work()
    print(f"\n{name}: {time.perf_counter() - began:.1f} s, holds {held_mb() - before:.0f} MB", end="")
    return result


@pytest.mark.filterwarnings("ignore")
def test_data(benchmark, raw, tmp_path):
    from monai.data import CacheDataset, Dataset, PersistentDataset

    names = sorted(path.name for path in (raw / "imagesTr").iterdir())
    files = [{"image": str(raw / "imagesTr" / name), "label": str(raw / "labelsTr" / name)} for name in names]
    opened = timed(
        "ours: prepare 20 cases",
        lambda: open_data(BraTS(), BraTSOptions(), Store(tmp_path / "store"), data=raw, demo=False, protocol=None),
    )
    persistent = PersistentDataset(files, monai_pipeline(), cache_dir=tmp_path / "persistent")
    timed("monai PersistentDataset: prepare 20 cases", lambda: [persistent[index] for index in range(CASES)])
    cached = timed(
        "monai CacheDataset: prepare 20 cases",
        lambda: CacheDataset(files, monai_pipeline(), num_workers=2, progress=False),
    )
    plain = Dataset(files, monai_pipeline())
    crops = Crops(opened.prepared, list(opened.prepared.facts), ROI, 1, 1, seed=0, with_labels=True)
    step = count()

    def ours():
        for _ in range(CROPS):
            torch.from_numpy(crops(next(step)).images).float()  # in single precision, as the others give it

    def peer(dataset, number):
        def draw():
            for index in range(number):
                item = dataset[index % CASES]
                for name in ("image", "label"):  # a crop is a view until it is put into a batch
                    torch.stack([item[name].as_tensor()])

        return draw

    peers = {"monai CacheDataset": peer(cached, CROPS), "monai PersistentDataset": peer(persistent, CROPS)}
    keep_freed_memory()  # as every run does; for all of them, and after what each holds was measured
    # Reading every file for every crop is so slow that one crop stands for all.
    one = peer(plain, 1)
    compare(benchmark, ours, peers, rounds=5)
    began = time.perf_counter()
    one()
    print(f"\nmonai Dataset (nothing kept): {time.perf_counter() - began:.2f} s per crop", end="")
    before = held_mb()
    for _ in range(100):
        crops(next(step))
    print(f"\nours: 100 more crops hold {held_mb() - before:.0f} MB more", end="")
