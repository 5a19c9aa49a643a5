"""Reading NIfTI, against nibabel."""

import gzip
import hashlib
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from mae_bench.data.nifti import finest_spacing, read_case, read_nifti, same_grid
from mae_bench.errors import InputError
from mae_bench.interfaces import Layout, RawCase
from tests.files.decathlon import Case, save, write_msd

AFFINE = np.array([[0, 0, -2.0, 10], [1.5, 0, 0, -20], [0, 3.0, 0, 30], [0, 0, 0, 1]])


def array_of(dtype: str, shape: tuple[int, ...] = (4, 5, 6)) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) % 120).astype(dtype)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "float32", "float64", ">i2", ">f4"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_reads_what_nibabel_wrote(tmp_path: Path, name: str, dtype: str, kind: type) -> None:
    """Every type of voxel, both byte orders, both versions, packed or not."""
    header = kind.header_class(endianness=">" if dtype.startswith(">") else "<")
    header.set_data_dtype(dtype)
    kind(array_of(dtype), AFFINE, header).to_filename(tmp_path / name)
    found = read_nifti(tmp_path / name)
    expected = nib.load(tmp_path / name)
    assert found.data.dtype == expected.get_data_dtype()
    np.testing.assert_array_equal(found.data, np.asarray(expected.dataobj))
    np.testing.assert_allclose(found.affine, expected.affine)
    assert found.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


@pytest.mark.parametrize(("slope", "intercept"), [(2.0, -1024.0), (0.5, 0.0), (1.0, 3.0)])
def test_scaled_voxels_are_scaled(tmp_path: Path, slope: float, intercept: float) -> None:
    image = nib.Nifti1Image(array_of("int16"), AFFINE)
    image.header.set_slope_inter(slope, intercept)
    image.header.set_data_offset(352)
    raw = image.header.binaryblock + b"\0" * 4 + array_of("int16").tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(raw)
    expected = array_of("int16") * slope + intercept
    found = read_nifti(tmp_path / "a.nii").data
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(found, nib.load(tmp_path / "a.nii").get_fdata())


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (1, 1), (0, 0)])
def test_the_affine_is_the_one_nibabel_picks(tmp_path: Path, sform: int, qform: int) -> None:
    image = nib.Nifti1Image(array_of("int16"), AFFINE)
    image.set_sform(AFFINE, sform)
    image.set_qform(AFFINE + np.pad([[0.0, 0, 0, 5]], ((0, 3), (0, 0))), qform)
    image.to_filename(tmp_path / "a.nii")
    np.testing.assert_allclose(read_nifti(tmp_path / "a.nii").affine, nib.load(tmp_path / "a.nii").affine, atol=1e-5)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_content_says_whether_it_is_packed_not_the_name(tmp_path: Path, name: str) -> None:
    """Some tools write .nii.gz without packing it, and the other way round."""
    raw = nib.Nifti1Image(array_of("int16"), AFFINE).to_bytes()
    (tmp_path / name).write_bytes(raw if name.endswith(".gz") else gzip.compress(raw))
    np.testing.assert_array_equal(read_nifti(tmp_path / name).data, array_of("int16"))


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    """Parallel packers (pigz, bgzip) write several members."""
    raw = nib.Nifti1Image(array_of("int16"), AFFINE).to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(raw[:300]) + gzip.compress(raw[300:]))
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii.gz").data, array_of("int16"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.nii\.gz: missing"):
        read_nifti(tmp_path / "gone.nii.gz")


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.nii").mkdir()
    with pytest.raises(InputError, match=r"a\.nii: cannot be read: Is a directory"):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("zooms", [(0.0, 0.0, 0.0), (1.0, 1.0, 0.0)])
def test_zero_spacing_is_refused_when_nothing_else_tells_it(tmp_path: Path, zooms: tuple[float, ...]) -> None:
    """Without sform and qform the voxel size is all there is: taking 1 mm for it would be a guess."""
    raw = bytearray(nib.Nifti1Image(array_of("int16"), AFFINE).to_bytes())
    struct.pack_into("<3f", raw, 80, *zooms)  # pixdim[1:4]
    struct.pack_into("<2h", raw, 252, 0, 0)  # qform_code, sform_code
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.nii: zero or undefined voxel spacing"):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("cut", [1, 347, 352, 400])
def test_cut_at_any_place_is_refused(tmp_path: Path, cut: int) -> None:
    raw = nib.Nifti1Image(array_of("int16"), AFFINE).to_bytes()
    (tmp_path / "a.nii").write_bytes(raw[:cut])
    with pytest.raises(InputError, match=r"a\.nii: (not a NIfTI file|truncated)"):
        read_nifti(tmp_path / "a.nii")


# --- cases ------------------------------------------------------------------------------------------------------------


def test_four_dimensions_become_channels(tmp_path: Path) -> None:
    truth = write_msd(tmp_path, [Case("a", orientation="LPS", dtype="float32")], channels=("A", "B", "C"))["a"]
    case = RawCase("a", "a", (Path("imagesTr/a.nii.gz"),), Path("labelsTr/a.nii.gz"))
    raw = read_case(case, tmp_path)
    file = nib.load(tmp_path / "imagesTr/a.nii.gz")
    np.testing.assert_array_equal(raw.image, np.moveaxis(np.asarray(file.dataobj), -1, 0))
    np.testing.assert_array_equal(raw.image[:, ::-1, ::-1], truth.image)
    np.testing.assert_array_equal(raw.label, np.asarray(nib.load(tmp_path / "labelsTr/a.nii.gz").dataobj))
    np.testing.assert_allclose(raw.affine, file.affine)
    np.testing.assert_allclose(raw.label_affine, file.affine)


def test_one_file_per_channel_is_stacked_in_order(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 99, (3, 4, 5, 6)).astype(np.int16)
    for number, array in enumerate(arrays):
        save(tmp_path / f"{number}.nii", array, np.eye(4))
    paths = [Path(f"{number}.nii") for number in (2, 0, 1)]
    np.testing.assert_array_equal(read_case(RawCase("a", "a", tuple(paths)), tmp_path).image, arrays[[2, 0, 1]])


def test_a_last_axis_of_one_is_dropped_from_labels_and_is_a_channel_of_images(tmp_path: Path) -> None:
    for name in ("image", "label"):
        save(tmp_path / f"{name}.nii", array_of("uint8", (4, 5, 6, 1)), np.eye(4))
    raw = read_case(RawCase("a", "a", (Path("image.nii"),), Path("label.nii")), tmp_path)
    assert raw.image.shape == (1, 4, 5, 6)
    assert raw.label is not None
    assert raw.label.shape == (4, 5, 6)


def test_channels_that_disagree_are_named(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", array_of("int16"), np.eye(4))
    save(tmp_path / "shape.nii", array_of("int16", (4, 5, 7)), np.eye(4))
    save(tmp_path / "moved.nii", array_of("int16"), np.diag([1, 1, 1.1, 1]))
    save(tmp_path / "four.nii", array_of("int16", (4, 5, 6, 2)), np.eye(4))
    for other, says in (
        ("shape", "shape .* differs"),
        ("moved", "affine differs"),
        ("four", "4 dimensions .* expected 3"),
    ):
        with pytest.raises(InputError, match=f"{other}.nii: {says}"):
            read_case(RawCase("a", "a", (Path("a.nii"), Path(f"{other}.nii"))), tmp_path)


def test_the_hash_covers_images_and_label(tmp_path: Path) -> None:
    write_msd(tmp_path, [Case("a")])
    case = RawCase("a", "a", (Path("imagesTr/a.nii.gz"),), Path("labelsTr/a.nii.gz"))
    first = read_case(case, tmp_path).sha256
    assert read_case(case, tmp_path).sha256 == first
    label = nib.load(tmp_path / "labelsTr/a.nii.gz")
    array = np.asarray(label.dataobj).copy()
    array[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(array, label.affine), tmp_path / "labelsTr/a.nii.gz")
    assert read_case(case, tmp_path).sha256 != first


# --- grids ------------------------------------------------------------------------------------------------------------


def test_same_grid_allows_rounding_only() -> None:
    near, far, turned = AFFINE.copy(), AFFINE.copy(), AFFINE.copy()
    near[:3, 3] += 1e-3
    near[0, 2] *= 1 + 1e-6
    far[0, 3] += 1.0
    turned[:, [0, 1]] = turned[:, [1, 0]]
    assert same_grid(AFFINE, near)
    assert not same_grid(AFFINE, far)
    assert not same_grid(AFFINE, turned)


def layout_of(root: Path, names: list[str]) -> Layout:
    return Layout(root, tuple(RawCase(name, name, (Path(name),)) for name in names), ("MRI",), {1: "a"})


def test_the_finest_spacing_is_per_ras_axis(tmp_path: Path) -> None:
    """Each axis from whichever case is finest there, however the file is turned."""
    save(tmp_path / "a.nii.gz", array_of("int16"), np.diag([1.0, 2, 3, 1]), "PIR")
    save(tmp_path / "b.nii", array_of("int16"), np.diag([3.0, 1.5, 2, 1]), "SLA")
    assert finest_spacing(layout_of(tmp_path, ["a.nii.gz", "b.nii"])) == (1.0, 1.5, 2.0)


def test_unreadable_headers_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", array_of("int16"), np.diag([1.0, 2, 3, 1]))
    (tmp_path / "b.nii.gz").write_bytes(b"")
    (tmp_path / "c.nii").write_text("no")
    names = ["a.nii.gz", "b.nii.gz", "c.nii", "gone.nii"]
    assert finest_spacing(layout_of(tmp_path, names)) == (1.0, 2.0, 3.0)
    assert finest_spacing(layout_of(tmp_path, names[1:])) is None


def test_the_finest_spacing_reads_every_file_that_can_be_read(tmp_path: Path) -> None:
    """The name does not say whether a file is packed: what `read_nifti` reads, this must see as well."""
    save(tmp_path / "a.nii", array_of("int16"), np.diag([2.0, 2, 2, 1]))
    raw = nib.Nifti1Image(array_of("int16"), np.diag([1.0, 1, 1, 1])).to_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(raw)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(raw))
    assert finest_spacing(layout_of(tmp_path, ["a.nii", "plain.nii.gz"])) == (1.0, 1.0, 1.0)
    assert finest_spacing(layout_of(tmp_path, ["a.nii", "packed.nii"])) == (1.0, 1.0, 1.0)


def test_microscopic_spacing_keeps_its_digits(tmp_path: Path) -> None:
    """Micro-CT: 6.25 micrometres. Rounding must not make a grid of its own."""
    save(tmp_path / "a.nii", array_of("int16"), np.diag([0.00625, 0.00625, 0.00625, 1]))
    assert finest_spacing(layout_of(tmp_path, ["a.nii"])) == pytest.approx((0.00625,) * 3, rel=1e-3)
