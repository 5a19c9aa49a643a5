"""Virtual subjects: real files in the Decathlon layout, the same every time, with anatomy where it belongs."""

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mae_bench.data.source import Data, open_data
from mae_bench.store import Store
from mae_bench_plugins.anatomy import template, virtual_subject
from mae_bench_plugins.datasets.mni152 import LABELS, MNI152, MNI152Options

SMALL = MNI152Options(subjects=6, spacing=6)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six subjects at 6 mm."""
    root = tmp_path_factory.mktemp("mni152")
    MNI152().write_demo(SMALL, root, lambda done, total: None)
    return root


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Data:
    store = Store(tmp_path_factory.mktemp("store"))
    return open_data(MNI152(), SMALL, store, data=None, demo=False, protocol=None)


def pairs(root: Path) -> list[tuple[nib.Nifti1Image, nib.Nifti1Image]]:
    names = sorted(path.name for path in (root / "imagesTr").iterdir())
    assert names == sorted(path.name for path in (root / "labelsTr").iterdir())
    return [(nib.load(root / "imagesTr" / name), nib.load(root / "labelsTr" / name)) for name in names]


def test_the_bytes_are_the_same_every_time(written: Path, tmp_path: Path) -> None:
    MNI152().write_demo(SMALL, tmp_path, lambda done, total: None)
    first, second = (
        {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*")}
        for root in (written, tmp_path)
    )
    assert first == second
    assert len(first) == 2 * 6 + 1


def test_more_subjects_leave_the_first_ones_as_they_are(written: Path, tmp_path: Path) -> None:
    MNI152().write_demo(SMALL.model_copy(update={"subjects": 7}), tmp_path, lambda done, total: None)
    for path in (written / "imagesTr").iterdir():
        assert (tmp_path / "imagesTr" / path.name).read_bytes() == path.read_bytes()


def test_files_are_what_the_options_say(written: Path) -> None:
    for image, label in pairs(written):
        assert image.shape == label.shape
        np.testing.assert_allclose(image.header.get_zooms(), 6.0)
        np.testing.assert_allclose(image.affine, label.affine)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8


def test_every_region_is_there_inside_the_brain(written: Path) -> None:
    for image, label in pairs(written):
        voxels, truth = np.asarray(image.dataobj), np.asarray(label.dataobj)
        assert set(np.unique(truth)) == {0, *LABELS}
        assert (voxels[truth > 0] > 0).all()
        litres = (voxels > 0).sum() * 6**3 / 1e6
        assert 1.2 < litres < 2.6


def test_regions_lie_where_anatomy_has_them(written: Path) -> None:
    """Left is left, the front is in front, the cerebellum is below: in world millimetres, by nibabel."""
    for _, label in pairs(written):
        truth = np.asarray(label.dataobj)
        centre = {
            value: nib.affines.apply_affine(label.affine, np.argwhere(truth == value)).mean(axis=0) for value in LABELS
        }
        frontal, posterior, temporal, left, right, cerebellum = (centre[value] for value in range(1, 7))
        assert left[0] < -5 < 5 < right[0]
        assert frontal[1] > posterior[1] + 40
        assert temporal[2] < posterior[2] - 15
        assert cerebellum[2] < left[2] - 25
        assert cerebellum[1] < frontal[1] - 40
        np.testing.assert_allclose(left * [-1, 1, 1], right, atol=12)


def test_white_matter_is_brighter_than_grey(written: Path) -> None:
    for image, label in pairs(written):
        voxels, truth = np.asarray(image.dataobj), np.asarray(label.dataobj)
        assert voxels[np.isin(truth, (4, 5))].mean() > 1.1 * voxels[np.isin(truth, (1, 2, 3))].mean()


def test_subjects_differ(written: Path) -> None:
    """In shape and in the scanner's scale, not only in noise."""
    labels = [np.asarray(label.dataobj) for _, label in pairs(written)]
    means = [np.asarray(image.dataobj)[np.asarray(image.dataobj) > 0].mean() for image, _ in pairs(written)]
    for first in range(6):
        for second in range(first):
            assert 0.4 < (labels[first] == labels[second])[labels[first] > 0].mean() < 0.97
    assert len({round(mean) for mean in means}) == 6


def test_anatomy_is_opened_as_segmentation(opened: Data) -> None:
    assert opened.kind == "demo"
    assert opened.task.kind == "segmentation"
    assert opened.task.outputs == 7
    assert opened.task.flip_axes == ()  # left and right have names
    assert opened.prepared.problems == {}
    assert len(opened.prepared.facts) == 6
    assert all(facts.findings == () for facts in opened.prepared.facts.values())
    assert sorted(opened.split.train + opened.split.val + opened.split.test) == sorted(opened.prepared.facts)


def test_atrophy_is_a_finding_of_every_other_subject(tmp_path: Path) -> None:
    options = SMALL.model_copy(update={"target": "atrophy"})
    data = open_data(MNI152(), options, Store(tmp_path), data=None, demo=True, protocol="clean-v1")
    assert data.task.kind == "classification"
    assert data.task.outputs == 1
    findings = {case: facts.findings for case, facts in data.prepared.facts.items()}
    assert findings == {case: ((1.0,) if case.endswith("a") else (0.0,)) for case in findings}
    assert sorted(findings.values()) == [(0.0,)] * 3 + [(1.0,)] * 3
    assert MNI152().provides(options) == {"3d", "classification"}
    assert MNI152().provides(SMALL) == {"3d", "segmentation"}


def test_the_template_is_tissue_in_shares() -> None:
    maps = template().maps
    assert maps.min() >= 0
    assert maps.max() <= 1.0 + 1e-6
    assert (maps[1] + maps[2]).max() < 1.05


@pytest.mark.parametrize("spacing", [4.0, 6.0])
def test_a_subject_without_deformation_is_nearly_the_template(spacing: float) -> None:
    """Only turned and scaled: the brain's volume stays within what the scaling allows."""
    subject = virtual_subject(np.random.default_rng(0), spacing, deformation=0.0)
    volume = float(subject.brain.sum()) * spacing**3
    native = float((template().maps[0] > 0.25).sum())
    assert 0.92**3 * 0.95 < volume / native < 1.08**3 * 1.1
    for tissue in (subject.gm, subject.wm, subject.csf):
        assert tissue.min() >= 0
        assert tissue.max() <= 1 + 1e-5
        assert not tissue[~subject.brain].any()
