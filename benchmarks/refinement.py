"""Refinement: again from kept embeddings, each model against its package's own call, only slices that need it.

Official weights are not needed: a network takes as long with random ones. The largest here is SAM ViT-B at its full
1024 pixels, on one slice, because a slice takes half a minute of two cores.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import Row, compare, seconds
from fewshot.features import FeatureBank, torchvision_ops
from fewshot.features.device import choose_device
from fewshot.features.embedded import random_state
from fewshot.refine.base import Region
from fewshot.refine.encoding import Embeddings
from fewshot.refine.sam import SamModel, load_sam, sam_at_hand
from fewshot.refine.sam_refiner import SamRefiner
from fewshot.volumes import SliceSpec, SliceStack, Volume

SLICES, SHOWN = 200, 40
"""Of the large volume, and those of them that show the structure."""

SAME = 0.8
"""Ratio to the package's call from which ours takes as long: two runs of the same differ by so much."""


def rows() -> list[Row]:
    """Three models, smallest first."""
    small = _small()
    sam2, its_predictor = _sam2_tiny()
    found = [*_many_slices(small), _again(sam2, 3)]
    found.append(_plain("SAM 2.1 tiny", its_predictor, sam2))
    del sam2, its_predictor
    return [*found, *_vit_b()]


def _many_slices(sam: SamModel) -> list[Row]:
    """The large volume with the small model: what is encoded, and the second time."""
    region = _region(SLICES, SHOWN)
    with tempfile.TemporaryDirectory() as folder:
        everything = Embeddings(region.stack, sam, FeatureBank(Path(folder) / "all"))
        all_slices = seconds(lambda: everything.prepare(range(SLICES)))
        assert everything.encoded == SLICES
        encoding = _Stopwatch(sam)
        refiner = SamRefiner(SamRefiner.Options(), sam=sam, bank=FeatureBank(Path(folder) / "needed"))
        first, encoded = _refined(refiner, region)
        needed = encoding.stop()
        second, encoded_again = _refined(refiner, region)
    ratio = all_slices / needed
    return [
        Row(
            f"{sam.name}: encode all {SLICES} slices / the {encoded} refined ones",
            all_slices,
            needed,
            ratio,
            f"{SHOWN} encoded",
            encoded == SHOWN,
        ),
        _twice(sam.name, SHOWN, first, second, encoded_again),
    ]


def _again(sam: SamModel, count: int) -> Row:
    """Refine a volume of so many slices twice."""
    region = _region(count, count)
    with tempfile.TemporaryDirectory() as folder:
        refiner = SamRefiner(SamRefiner.Options(), sam=sam, bank=FeatureBank(Path(folder)))
        first, _ = _refined(refiner, region)
        second, encoded_again = _refined(refiner, region)
    return _twice(sam.name, count, first, second, encoded_again)


def _vit_b() -> list[Row]:
    """SAM ViT-B: too slow here for more than one slice each way."""
    sam, predictor = _sam_vit_b()
    image = _square(predictor.model.image_encoder.img_size)
    plain = seconds(lambda: predictor.set_image(_colours(image)))
    encoding = _Stopwatch(sam)
    again = _again(sam, 1)
    ours = encoding.stop()
    return [again, _against("SAM ViT-B", plain, ours)]


def _plain(name: str, predictor: Any, sam: SamModel) -> Row:
    """Time per slice of the package's predictor and of our wrapper."""
    image = _square(sam.size)
    plain, ours = compare(
        lambda: predictor.set_image(_colours(image)), lambda: sam.encode(image[np.newaxis]), repeats=2
    )
    return _against(name, plain, ours)


def _twice(name: str, count: int, first: float, second: float, encoded: int) -> Row:
    ratio = first / second
    what = f"{name}: refine {count} slice{'s' if count > 1 else ''}, first / second"
    return Row(what, first, second, ratio, ">= 10", ratio >= 10 and encoded == 0)


def _against(name: str, plain: float, ours: float) -> Row:
    ratio = plain / ours
    return Row(
        f"{name}: encode a slice, its package in float32 / ours",
        plain,
        ours,
        ratio,
        f">= {SAME}",
        ratio >= SAME,
    )


def _refined(refiner: SamRefiner, region: Region) -> tuple[float, int]:
    """Seconds, and slices encoded."""
    done: list[Any] = []
    spent = seconds(lambda: done.append(refiner.refine(region)))
    return spent, done[0].provenance["encoded"]


class _Stopwatch:
    """Adds up the seconds that a model encodes, until stopped."""

    def __init__(self, sam: SamModel) -> None:
        self.sam, self.spent = sam, 0.0
        plain: Callable[[np.ndarray], Any] = sam.encode

        def encode(images: np.ndarray) -> Any:
            found: list[Any] = []
            self.spent += seconds(lambda: found.append(plain(images)))
            return found[0]

        sam.encode = encode  # type: ignore[method-assign]

    def stop(self) -> float:
        """Seconds so far; the model is as before."""
        del self.sam.encode  # the class's own shows again
        return self.spent


def _region(slices: int, shown: int) -> Region:
    """A bright cylinder in the middle of a noisy volume, found a little shifted."""
    generator = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(160), np.arange(160), indexing="ij")
    inside = (x - 70) ** 2 + (y - 90) ** 2 < 25**2
    array = (100 + 10 * generator.standard_normal((160, 160, slices))).astype(np.float32)
    start = (slices - shown) // 2
    array[inside, start : start + shown] += 80
    labels = np.zeros(array.shape, np.uint16)
    labels[np.roll(inside, 3, axis=0), start : start + shown] = 1
    volume = Volume(array, np.diag([1.5, 1.5, 1.5, 1.0]), "MR", "cylinder", None, True, ())
    stack = SliceStack(volume, SliceSpec(plane="axial"), patch=1)
    return Region(stack, ["cylinder"], stack.slices(labels))


def _square(size: int) -> np.ndarray:
    """A slice of noise, float32 ``[size, size]`` in [0, 1]."""
    return np.random.default_rng(0).random((size, size), np.float32)


def _colours(image: np.ndarray) -> np.ndarray:
    """As the packages want it, uint8 ``[size, size, 3]``."""
    return np.repeat(np.rint(image * 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)


def _small() -> SamModel:
    """The embedded SAM, or one like it with random weights."""
    if sam_at_hand("embedded"):
        return load_sam("embedded")
    from fewshot.refine.sam import small
    from fewshot.refine.sam.promptable import SegmentAnything

    network = small.build(small.ARCHITECTURE)
    network.load_state_dict(random_state(network))
    return SegmentAnything("embedded (random)", network, device=choose_device())


def _sam2_tiny() -> tuple[SamModel, Any]:
    """SAM 2.1 tiny with random weights, behind our interface and the package's."""
    torchvision_ops.ensure()
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    from fewshot.refine.sam2.architecture import Architecture, build
    from fewshot.refine.sam2.model import Sam2Model

    network = build(Architecture("sam2.1/sam2.1_hiera_t.yaml", {}))
    sam = Sam2Model("SAM 2.1 tiny (random)", network)
    return sam, SAM2ImagePredictor(network)


def _sam_vit_b() -> tuple[SamModel, Any]:
    """SAM ViT-B with random weights, behind our interface and the package's."""
    torchvision_ops.ensure()
    from segment_anything import SamPredictor, build_sam_vit_b

    from fewshot.refine.sam.promptable import SegmentAnything

    device = choose_device()
    network = build_sam_vit_b()
    # ours turns its encoder to the machine's precision, the package computes in float32
    predictor = SamPredictor(copy.deepcopy(network).to(device).eval())
    with torch.inference_mode():
        return SegmentAnything("SAM ViT-B (random)", network, device=device), predictor
