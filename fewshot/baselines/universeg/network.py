"""UniverSeg's network, with the parameters of the published one, computed in fewer steps.

A CrossBlock (paper, section 3) convolves the target's features joined with those of each support image, averages
the results for the target, and convolves both again. Between the two convolutions the published network has no
activation, so everything up to the activation is linear, and the convolution of joined channels is the sum of two:

- the part of the target is computed once, not once per support image;
- the target sees the mean over the support set, and the last block needs nothing else of it: its convolutions at full
  resolution run on one mean image instead of on every support image;
- in the first block the part of the support images does not depend on the target and is kept for all targets.

The results are those of convolving every pair, but for the order of additions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, max_pool2d

SIZE = 128
"""Pixels along both sides of the images that the published weights were trained on."""

SUPPORT_CHUNK = 8
"""Support images whose features at full resolution exist at once, besides those kept for all targets."""


@dataclass(frozen=True)
class Widths:
    """Channels of the network.

    Attributes:
        encoder: (after the CrossConv, after the convolution) of each block.
        decoder: the same; one block fewer than the encoder has.
    """

    encoder: tuple[tuple[int, int], ...] = ((64, 64),) * 4
    decoder: tuple[tuple[int, int], ...] = ((64, 64),) * 3


PUBLISHED = Widths()
"""Those of ``universeg_v1_nf64_ss64_STA.pt``."""


class _Convolution(nn.Module):
    """A convolution under the name that it has in the published file."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.conv(features)
        return found


class _Mapped(nn.Module):
    """One more level of names in the published file: what it holds runs on every image of a set."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.vmapped = _Convolution(channels_in, channels_out)

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.vmapped(features)
        return found


class _Cross(nn.Module):
    def __init__(self, target: int, support: int, channels_out: int) -> None:
        super().__init__()
        self.cross_conv = nn.Conv2d(target + support, channels_out, 3, padding=1)


class CrossBlock(nn.Module):
    """One CrossBlock: ``cross_conv`` on pairs, then a convolution and leaky ReLU for each side.

    Args:
        target: channels of the target's features.
        support: channels of the support images' features.
        cross: channels after the convolution of pairs.
        out: channels after both convolutions.
    """

    def __init__(self, target: int, support: int, cross: int, out: int) -> None:
        super().__init__()
        self.cross = _Cross(target, support, cross)
        self.target = _Mapped(cross, out)
        self.support = _Mapped(cross, out)
        self._split = target

    def of_target(self, target: Tensor) -> Tensor:
        """The target's part of the convolution of pairs, bias included: ``[B, C, H, W]`` -> ``[B, F, H, W]``."""
        conv = self.cross.cross_conv
        return conv2d(target, conv.weight[:, : self._split], conv.bias, padding=1)

    def of_support(self, support: Tensor) -> Tensor:
        """The support images' part, without bias: ``[N, C, H, W]`` -> ``[N, F, H, W]``."""
        return conv2d(support, self.cross.cross_conv.weight[:, self._split :], padding=1)

    def new_target(self, of_target: Tensor, mean_support: Tensor) -> Tensor:
        """The target after the block, from its part and the mean of the support images' parts."""
        return leaky_relu(self.target(of_target + mean_support))

    def second_of_target(self, of_target: Tensor) -> Tensor:
        """What the target adds to every support image before their activation, bias included."""
        return self.support(of_target)

    def second_of_support(self, of_support: Tensor) -> Tensor:
        """What a support image adds itself before the activation."""
        return conv2d(of_support, self.support.vmapped.conv.weight, padding=1)

    def forward(self, target: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
        """``[B, C, H, W]`` and ``[B, S, C, H, W]`` -> the same with the block's channels."""
        batch, count = support.shape[:2]
        first, others = self.of_target(target), self.of_support(support.flatten(0, 1))
        mean = others.unflatten(0, (batch, count)).mean(1)
        second = self.second_of_support(others).unflatten(0, (batch, count))
        return self.new_target(first, mean), leaky_relu(second + self.second_of_target(first)[:, None])

    def target_alone(self, target: Tensor, mean_support: Tensor) -> Tensor:
        """The target after the block, from the mean of the support images' features ``[B, C, H, W]``."""
        return self.new_target(self.of_target(target), self.of_support(mean_support))


@dataclass(frozen=True, eq=False)
class Prepared:
    """What the first block makes of a support set whatever the target.

    Attributes:
        mean: ``[1, F, H, W]`` mean of the support images' parts of the convolution of pairs.
        second: ``[S, F, H, W]`` what each support image adds before its activation.
    """

    mean: Tensor
    second: Tensor


class UniverSegNetwork(nn.Module):
    """The network of Butoi et al. 2023: a U-Net of CrossBlocks.

    Args:
        widths: channels, by default the published ones; at least two encoder blocks.

    Images have sides that are multiples of 2 to the power of the number of decoder blocks; the published weights
    are for 128 x 128 pixels in [0, 1] and binary label maps.
    """

    def __init__(self, widths: Widths = PUBLISHED) -> None:
        super().__init__()
        self.widths = widths
        ends = [out for _, out in widths.encoder]
        first_cross, first_out = widths.encoder[0]
        self.enc_blocks = nn.ModuleList([CrossBlock(1, 2, first_cross, first_out)])
        for before, (cross, out) in zip(ends, widths.encoder[1:], strict=False):
            self.enc_blocks.append(CrossBlock(before, before, cross, out))
        self.dec_blocks = nn.ModuleList()
        channels = ends[-1]
        for skip, (cross, out) in zip(ends[-2::-1], widths.decoder, strict=True):
            self.dec_blocks.append(CrossBlock(channels + skip, channels + skip, cross, out))
            channels = out
        self.out_conv = _Convolution(channels, 1, kernel=1)

    def prepare(self, images: Tensor, labels: Tensor) -> Prepared:
        """Compute what all targets with this support set share.

        Args:
            images: ``[S, 1, H, W]`` in [0, 1].
            labels: ``[S, 1, H, W]``, 1 inside the label, else 0.
        """
        block = self._encoder[0]
        parts = block.of_support(torch.cat([images, labels], dim=1))
        return Prepared(mean=parts.mean(0, keepdim=True), second=block.second_of_support(parts))

    def forward(self, target: Tensor, support_images: Tensor, support_labels: Tensor) -> Tensor:
        """Logits of one label.

        Args:
            target: ``[B, 1, H, W]`` in [0, 1].
            support_images: ``[B, S, 1, H, W]`` in [0, 1].
            support_labels: ``[B, S, 1, H, W]``, 0 or 1.

        Returns:
            ``[B, 1, H, W]``.
        """
        each = zip(target, support_images, support_labels, strict=True)
        return torch.cat(
            [self.segment(image[None], self.prepare(images, labels)) for image, images, labels in each]
        )

    def segment(self, target: Tensor, prepared: Prepared) -> Tensor:
        """Logits ``[B, 1, H, W]`` of targets ``[B, 1, H, W]`` that share a support set."""
        whole, support, mean = self._first_block(target, prepared)
        target = max_pool2d(whole, 2)
        skips: list[tuple[Tensor, Tensor]] = []
        for index, block in enumerate(self._encoder[1:]):
            if index:
                skips.append((target, support))
                target, support = max_pool2d(target, 2), on_images(lambda x: max_pool2d(x, 2), support)
            target, support = block(target, support)
        for block in self._decoder[:-1]:
            skip, skip_support = skips.pop()
            target, support = block(
                torch.cat([enlarge(target), skip], dim=1),
                torch.cat([on_images(enlarge, support), skip_support], dim=2),
            )
        target = self._decoder[-1].target_alone(
            torch.cat([enlarge(target), whole], dim=1), torch.cat([enlarge(support.mean(1)), mean], dim=1)
        )
        logits: Tensor = self.out_conv(target)
        return logits

    @property
    def _encoder(self) -> list[CrossBlock]:
        return cast(list[CrossBlock], list(self.enc_blocks))

    @property
    def _decoder(self) -> list[CrossBlock]:
        return cast(list[CrossBlock], list(self.dec_blocks))

    def _first_block(self, target: Tensor, prepared: Prepared) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the target, those of the support images at half the size, and their mean at full size."""
        block = self._encoder[0]
        first = block.of_target(target)
        second = block.second_of_target(first)[:, None]
        smaller, total = [], torch.zeros(())
        for part in prepared.second.split(SUPPORT_CHUNK):
            features = leaky_relu(part + second)
            smaller.append(on_images(lambda x: max_pool2d(x, 2), features))
            total = total.to(features) + features.sum(1)
        mean = total / len(prepared.second)
        return block.new_target(first, prepared.mean), torch.cat(smaller, dim=1), mean


def enlarge(features: Tensor) -> Tensor:
    """``[N, C, h, w]`` at twice the size, corners aligned as in the published network."""
    return interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)


def on_images(change: Callable[[Tensor], Tensor], sets: Tensor) -> Tensor:
    """What ``change`` makes of every image of sets ``[B, S, ...]``."""
    return change(sets.flatten(0, 1)).unflatten(0, sets.shape[:2])


def initialise(network: UniverSegNetwork, seed: int) -> None:
    """Draw all weights anew, normal with the variance that keeps the signal's (He et al. 2015); biases are 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                activated = "vmapped" in name
                nn.init.kaiming_normal_(module.weight, nonlinearity="leaky_relu" if activated else "linear")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
