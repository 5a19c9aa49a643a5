"""Encoder and generator together: codes of images, and images from codes. PAPER 5b."""

from typing import Any, NamedTuple

from torch import Tensor, nn

from mae_bench_plugins.pretraining.lsae.encoder import Structure, TextureEncoder, make_stem
from mae_bench_plugins.pretraining.lsae.generator import Generator


class Codes(NamedTuple):
    """structure: (N, S, H / 16, W / 16). maps: of the structure branch, finest first. texture: (B, T)."""

    structure: Tensor
    maps: list[Tensor]
    texture: Tensor


class SwappingAutoencoder(nn.Module):
    """Texture from the encoder that is trained, structure from a branch beside it.

    The `texture` backbone shares its stem with the structure branch, as published. For any other encoder the texture
    is a linear projection of `pooled`, and structure gets a stem of its own: the maps of a ViT or a ResNet are too
    coarse, or change with the backbone, while the generator wants an image's 16th.

    The encoder sees images as the data set normalises them, here as in fine-tuning. Those images divided by `bound`
    lie in about [-1, 1], which is what the generator makes.
    """

    def __init__(self, encoder: Any, width: int, texture_dim: int, structure_channels: int, bound: float) -> None:
        super().__init__()
        self.encoder, self.bound = encoder, bound
        self.shared = isinstance(encoder, TextureEncoder)
        fits = self.shared and encoder.dim == texture_dim
        self.projection = nn.Identity() if fits else nn.Linear(encoder.dim, texture_dim)
        self.stem = None if self.shared else make_stem(encoder.channels, width)
        self.structure = Structure(encoder.width if self.shared else width, width, structure_channels)
        self.generator = Generator(encoder.channels, width, structure_channels, texture_dim)

    def encode(self, images: Tensor, structures: int) -> Codes:
        """Textures of images (B, C, H, W) in [-1, 1], and structures of the first N = `structures`."""
        images = images * self.bound
        if self.stem is None:
            stem = self.encoder.stem(images)
            texture, stem = self.encoder.texture(stem), stem[:structures]
        else:
            texture, stem = self.encoder(images).pooled, self.stem(images[:structures])
        structure, maps = self.structure(stem)
        return Codes(structure, maps, self.projection(texture))

    def forward(self, structure: Tensor, texture: Tensor) -> Tensor:
        """Images in [-1, 1] from codes."""
        images: Tensor = self.generator(structure, texture)
        return images
