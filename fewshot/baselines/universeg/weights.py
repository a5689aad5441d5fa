"""UniverSeg's weights: found, read from the published file or one in the same format, or drawn at random."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fewshot.baselines.universeg.network import UniverSegNetwork, Widths
from fewshot.errors import FewshotError
from fewshot.features.formats.tensors import read_tensors

PUBLISHED_FILE = "universeg_v1_nf64_ss64_STA.pt"
PUBLISHED_AT = "https://github.com/JJGO/UniverSeg/releases/tag/weights"
VARIABLE = "FEWSHOT_UNIVERSEG"
"""Environment variable with the path of the weights, where the option ``weights`` does not name it."""

BLOCK_PARAMETERS = tuple(
    f"{part}.{kind}"
    for part in ("cross.cross_conv", "target.vmapped.conv", "support.vmapped.conv")
    for kind in ("weight", "bias")
)
BLOCK = re.compile(r"(enc_blocks|dec_blocks)\.(\d+)\.(.+)")


def find_weights(option: str) -> Path | None:
    """The file that the option or else the environment variable names; None if neither is given.

    Raises:
        FewshotError: if there is no such file.
    """
    for given, by in (
        (option, "option weights of baseline universeg"),
        (os.environ.get(VARIABLE, ""), f"the environment variable {VARIABLE}"),
    ):
        if given:
            path = Path(given).expanduser()
            if not path.is_file():
                raise FewshotError(
                    f"UniverSeg file {path}, named by {by}, does not exist; give the path of {PUBLISHED_FILE}."
                )
            return path
    return None


def no_weights() -> FewshotError:
    """What to say where no file is named."""
    return FewshotError(
        f"Baseline universeg needs its published weights: download {PUBLISHED_FILE} from {PUBLISHED_AT} and give "
        f"its path with --set universeg.weights=PATH or in the environment variable {VARIABLE} (to measure only "
        "its speed, --set universeg.random=true)."
    )


def load_network(path: Path) -> UniverSegNetwork:
    """The network with the weights of a file.

    Args:
        path: the published ``.pt`` file, or ``.safetensors``; with other widths or another number of blocks too.

    Raises:
        FewshotError: if the file is damaged or holds anything but a UniverSeg network, saying what is different.
    """
    try:
        state, _ = read_tensors(path)
    except FewshotError as error:
        raise FewshotError(str(error).replace("Backbone file", "UniverSeg file", 1)) from error
    network = UniverSegNetwork(widths_of(state, path))
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name, shape in wanted.items():
        if name not in state:
            raise _different(path, f"{name} is missing")
        if tuple(state[name].shape) != shape:
            raise _different(path, f"{name} has the shape {tuple(state[name].shape)} instead of {shape}")
    if not all(state[name].is_floating_point() and state[name].isfinite().all() for name in wanted):
        raise _different(path, "some of its numbers are not finite")
    network.load_state_dict(state)
    return network.eval()


def widths_of(state: Mapping[str, Tensor], path: Path) -> Widths:
    """Channels and number of blocks, by the shapes of the tensors.

    Raises:
        FewshotError: if the names are not those of a UniverSeg network.
    """
    blocks: dict[str, dict[int, tuple[int, int]]] = {"enc_blocks": {}, "dec_blocks": {}}
    for name in state:
        found = BLOCK.fullmatch(name)
        if found and found[3] in BLOCK_PARAMETERS:
            side, number = found[1], int(found[2])
            weights = [
                state.get(f"{side}.{number}.{part}.conv.weight".replace("cross.conv", "cross.cross_conv"))
                for part in ("cross", "target.vmapped")
            ]
            if any(weight is None or weight.ndim != 4 for weight in weights):
                raise _different(path, f"{side}.{number} is not complete")
            blocks[side][number] = (len(weights[0]), len(weights[1]))  # type: ignore[arg-type]
        elif name not in ("out_conv.conv.weight", "out_conv.conv.bias"):
            raise _different(path, f"it holds {name}")
    encoder, decoder = (tuple(blocks[side][n] for n in sorted(blocks[side])) for side in blocks)
    for side, sizes in blocks.items():
        if sorted(sizes) != list(range(len(sizes))):
            raise _different(path, f"the numbers of its {side} have a gap")
    if len(encoder) < 2 or len(decoder) != len(encoder) - 1:
        raise _different(path, f"it has {len(encoder)} enc_blocks and {len(decoder)} dec_blocks")
    return Widths(encoder, decoder)


def _different(path: Path, what: str) -> FewshotError:
    return FewshotError(f"{path} is not a UniverSeg network ({what}); give {PUBLISHED_FILE} as published.")
