"""A small Segment Anything for machines without a GPU: the embedded backbone with SAM's own prompts and decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewshot.features import embedded, torchvision_ops
from fewshot.features.backbone import GREY_MEAN, GREY_STD

HEADER_KEY = "fewshot_sam"
"""Metadata key under which our files keep their architecture as JSON."""

ARCHITECTURE: dict[str, Any] = {
    "backbone": embedded.ARCHITECTURE,
    "size": 256,
    "dim": 128,
    "mlp": 512,
    "heads": 4,
    "depth": 2,
}


class SmallEncoder(nn.Module):
    """Images -> embedding of 8 x 8 pixels a cell, as SAM's decoder wants it.

    The backbone's tokens, which know the surroundings, and its details at half that stride, which know the place,
    are joined by a neck like that of SAM's own encoder.

    Args:
        backbone: architecture of a `DetailViT`.
        size: pixels of the square image.
        dim: channels of the embedding.
    """

    channels = 1
    normalises = True
    """Takes grey values in [0, 1]; pixels are normalised here."""

    def __init__(self, backbone: dict[str, Any], size: int, dim: int) -> None:
        super().__init__()
        from segment_anything.modeling.common import LayerNorm2d

        self.img_size = size
        self.backbone: Any = embedded.build(backbone)
        self.unshuffle = nn.PixelUnshuffle(2)
        self.neck = nn.Sequential(
            nn.Conv2d(backbone["embed_dim"] + 4 * backbone["detail"], dim, 1, bias=False),
            LayerNorm2d(dim),
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            LayerNorm2d(dim),
        )

    def features(self, images: Tensor) -> Tensor:
        """What the neck joins, of images ``[B, 1, size, size]`` in [0, 1]: ``[B, C, size / 8, size / 8]``."""
        encoded = self.backbone.encode((images - GREY_MEAN) / GREY_STD)
        details = self.unshuffle(encoded.details.permute(0, 3, 1, 2))
        return torch.cat([encoded.patches.permute(0, 3, 1, 2), details], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Embedding ``[B, dim, size / 8, size / 8]`` of images ``[B, 1, size, size]`` in [0, 1]."""
        return self.neck(self.features(images))


class Marks(nn.Module):
    """Points and boxes painted into the dense embedding, beside SAM's own encoding of their positions.

    To look up a place by its encoding is what a decoder learns last; a small one, trained for an hour, would not.

    Args:
        dim: channels of the embedding.
    """

    CELL = 4
    """Pixels of the painting per cell of the embedding along each side, as in SAM's mask input."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.paint = nn.Sequential(
            nn.Conv2d(3, dim // 2, self.CELL, stride=self.CELL), nn.GELU(), nn.Conv2d(dim // 2, dim, 1)
        )

    def forward(
        self,
        points: tuple[Tensor, Tensor] | None,
        boxes: Tensor | None,
        *,
        cells: tuple[int, int],
        pixels: tuple[int, int],
    ) -> Tensor:
        """Embedding ``[B, dim, h, w]`` of points (``[B, N, 2]`` as x, y and labels ``[B, N]``) and boxes ``[B, 4]``."""
        given = points[0] if points is not None else boxes
        assert given is not None
        rows, cols = (self.CELL * count for count in cells)
        painting = given.new_zeros(len(given), 3, rows, cols)
        scale = given.new_tensor([cols / pixels[1], rows / pixels[0]])
        if points is not None:
            places = ((points[0] + 0.5) * scale).long()
            x, y = places[..., 0].clamp(0, cols - 1), places[..., 1].clamp(0, rows - 1)
            batch = torch.arange(len(given), device=given.device)[:, None].expand_as(x)
            for channel, label in ((0, 1), (1, 0)):
                said = points[1] == label
                painting[batch[said], channel, y[said], x[said]] = 1
        if boxes is not None:
            corners = (boxes.reshape(-1, 2, 2) + 0.5) * scale
            ys = torch.arange(rows, device=given.device) + 0.5
            xs = torch.arange(cols, device=given.device) + 0.5
            low, high = corners[:, 0, :, None], corners[:, 1, :, None]
            across, down = (xs >= low[:, 0]) & (xs <= high[:, 0]), (ys >= low[:, 1]) & (ys <= high[:, 1])
            painting[:, 2] = (down[:, :, None] & across[:, None, :]).to(painting.dtype)
        return self.paint(painting)


def build(architecture: dict[str, Any]) -> Any:
    """A ``segment_anything`` model of this architecture, with random weights."""
    torchvision_ops.ensure()  # segment_anything imports torchvision
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

    class MarkingEncoder(PromptEncoder):
        """SAM's prompt encoder, with `Marks`."""

        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.marks = Marks(arguments["embed_dim"])

        def forward(
            self, points: tuple[Tensor, Tensor] | None, boxes: Tensor | None, masks: Tensor | None
        ) -> tuple[Tensor, Tensor]:
            sparse, dense = super().forward(points, boxes, masks)
            if points is not None or boxes is not None:
                dense = dense + self.marks(
                    points, boxes, cells=self.image_embedding_size, pixels=self.input_image_size
                )
            return sparse, dense

    dim, size = architecture["dim"], architecture["size"]
    side = size // architecture["backbone"]["patch_size"]
    return Sam(
        image_encoder=SmallEncoder(architecture["backbone"], size, dim),
        prompt_encoder=MarkingEncoder(
            embed_dim=dim, image_embedding_size=(side, side), input_image_size=(size, size), mask_in_chans=16
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=architecture["depth"],
                embedding_dim=dim,
                mlp_dim=architecture["mlp"],
                num_heads=architecture["heads"],
            ),
            transformer_dim=dim,
            iou_head_depth=3,
            iou_head_hidden_dim=dim,
        ),
    )
