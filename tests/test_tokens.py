"""Patches and positions, against loops and the formulas of the papers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import build_sincos2d_pos_embed

from mae_bench.tokens import patchify, resize_positions, sincos_positions, unpatchify


@st.composite
def images(draw: st.DrawFn) -> tuple[torch.Tensor, tuple[int, ...], tuple[int, ...]]:
    ndim = draw(st.integers(2, 3))
    sides = st.lists(st.integers(1, 4), min_size=ndim, max_size=ndim)
    patch, grid = tuple(draw(sides)), tuple(draw(sides))
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shape = (batch, channels, *(g * p for g, p in zip(grid, patch, strict=True)))
    return torch.arange(math.prod(shape), dtype=torch.float32).reshape(shape), patch, grid


@settings(max_examples=40, deadline=None)
@given(images())
def test_unpatchify_inverts_patchify(drawn: tuple[torch.Tensor, tuple[int, ...], tuple[int, ...]]) -> None:
    image, patch, grid = drawn
    tokens = patchify(image, patch)
    assert tokens.shape == (len(image), math.prod(grid), image.shape[1] * math.prod(patch))
    assert torch.equal(unpatchify(tokens, patch, grid), image)
    assert torch.equal(patchify(unpatchify(tokens, patch, grid), patch), tokens)


@settings(max_examples=40, deadline=None)
@given(images())
def test_tokens_are_row_major_and_channel_first(drawn: tuple[torch.Tensor, tuple[int, ...], tuple[int, ...]]) -> None:
    image, patch, grid = drawn
    tokens = patchify(image, patch)
    for number, place in enumerate(np.ndindex(*grid)):
        part = tuple(slice(at * size, (at + 1) * size) for at, size in zip(place, patch, strict=True))
        assert torch.equal(tokens[:, number], image[(slice(None), slice(None), *part)].flatten(1))


@pytest.mark.parametrize("patch", [(4, 2), (4, 2, 8)])
def test_a_convolution_kernel_is_a_matrix_on_tokens(patch: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    convolution = torch.nn.functional.conv2d if len(patch) == 2 else torch.nn.functional.conv3d
    image = torch.randn(2, 3, *(size * 3 for size in patch), dtype=torch.float64)
    kernel = torch.randn(5, 3, *patch, dtype=torch.float64)
    expected = convolution(image, kernel, stride=patch).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patchify(image, patch) @ kernel.flatten(1).T, expected)


def test_an_image_that_is_no_whole_number_of_patches_is_refused() -> None:
    with pytest.raises(RuntimeError):
        patchify(torch.zeros(1, 1, 9, 8), (4, 4))
    with pytest.raises(ValueError, match="zip"):
        patchify(torch.zeros(1, 1, 8, 8), (4, 4, 4))


def by_loops(grid: tuple[int, ...], dim: int) -> np.ndarray:
    """Per axis: sines then cosines of place * 10000^(-k/n), n frequencies (PAPER 4: dim/6 in 3-D; dim/4 in 2-D)."""
    count = dim // 2 // len(grid)
    rows = []
    for place in np.ndindex(*grid):
        row = []
        for position in place:
            row += [math.sin(position / 10000 ** (k / count)) for k in range(count)]
            row += [math.cos(position / 10000 ** (k / count)) for k in range(count)]
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(("grid", "dim"), [((3, 5), 32), ((14, 14), 768), ((2, 3, 4), 12), ((6, 6, 6), 384), ((7,), 8)])
def test_sincos_positions(grid: tuple[int, ...], dim: int) -> None:
    table = sincos_positions(grid, dim)
    assert (table.shape, table.dtype) == ((math.prod(grid), dim), torch.float32)
    np.testing.assert_allclose(table.numpy(), by_loops(grid, dim), atol=1e-6)


def test_sincos_positions_are_timms() -> None:
    """The library orders its columns by function, then axis; ours by axis, then function, as He et al.'s code does."""
    table = build_sincos2d_pos_embed([3, 5], dim=64).reshape(15, 2, 2, 16).transpose(1, 2).flatten(1)
    torch.testing.assert_close(sincos_positions((3, 5), 64), table, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dim", [8, 10, 16, 64, 96, 128, 192, 512, 768, 1024])
@pytest.mark.parametrize("grid", [(4, 5), (3, 4, 5)])
def test_any_even_width_tells_all_places_apart(grid: tuple[int, ...], dim: int) -> None:
    """512, the published decoder width, is not divisible by 6."""
    table = sincos_positions(grid, dim)
    assert table.shape == (math.prod(grid), dim)
    distances = torch.cdist(table, table) + 1e3 * torch.eye(len(table))
    assert distances.min() > 0.1
    torch.testing.assert_close(table.square().sum(1), torch.full((len(table),), dim / 2))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=3), st.integers(1, 6))
def test_the_same_grid_changes_nothing(grid: list[int], dim: int) -> None:
    table = torch.randn(math.prod(grid), dim)
    assert torch.equal(resize_positions(table, grid, tuple(grid)), table)


def linear(table: np.ndarray, old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
    """Separable linear interpolation between voxel centres, constant beyond the outermost ones."""
    values = table.reshape(*old, -1)
    for axis, (before, after) in enumerate(zip(old, new, strict=True)):
        places = (np.arange(after) + 0.5) * before / after - 0.5
        values = np.apply_along_axis(lambda line, x=places, n=before: np.interp(x, np.arange(n), line), axis, values)
    return values.reshape(math.prod(new), -1)


@pytest.mark.parametrize(
    ("old", "new"),
    [((3, 4), (6, 8)), ((6, 4), (3, 7)), ((2, 3, 4), (4, 3, 5)), ((6, 6, 6), (8, 8, 8)), ((3, 3, 2), (2, 2, 1))],
)
def test_another_grid_is_interpolated_linearly(old: tuple[int, ...], new: tuple[int, ...]) -> None:
    table = torch.from_numpy(np.random.default_rng(0).normal(size=(math.prod(old), 6)))
    np.testing.assert_allclose(resize_positions(table, old, new).numpy(), linear(table.numpy(), old, new), atol=1e-12)


def test_interpolation_is_differentiable() -> None:
    table = torch.randn(12, 4, requires_grad=True)
    resize_positions(table, (3, 4), (6, 8)).sum().backward()
    assert table.grad is not None
    torch.testing.assert_close(table.grad, torch.full_like(table.grad, 4.0))
