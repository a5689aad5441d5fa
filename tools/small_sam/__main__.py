"""Train the small Segment Anything: `python -m tools.small_sam DATA [--minutes 90] [--out FILE]`.

DATA holds the volumes that ``fewshot/weights/embedded-split.json`` names under pretraining. Pictures are made first
(ten minutes on one core) and kept in a folder; an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fewshot.features.embedded import WEIGHTS as BACKBONE
from fewshot.refine.sam.small import ARCHITECTURE
from tools.small_sam.check import score_phantoms
from tools.small_sam.images import Pair, Pool, drawn, phantoms, real, write_pool
from tools.small_sam.training import Training

SPLIT = BACKBONE.with_name("embedded-split.json")
SEED = 5
COUNTS = {"drawn": 3000, "phantom": 2500, "real": 4000}
"""Pictures of each source; of real ones as many as there are."""
PER_VOLUME = 24
HELD_OUT = range(6)
"""Phantoms that the result is checked on."""


def main() -> None:
    """Make pictures, train, write the weights, say how good they are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=BACKBONE.with_name("embedded-sam.safetensors"))
    parser.add_argument(
        "--work", type=Path, default=Path("small-sam"), help="folder of pictures and of the state"
    )
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    make_pictures(arguments.data, arguments.work)
    training = Training(
        Pool(arguments.work),
        arguments.work / "state.pt",
        minutes=arguments.minutes,
        batch=arguments.batch,
        backbone=BACKBONE,
    )
    training.run(partial(print, flush=True))
    training.write(arguments.out)
    from fewshot.refine.sam import load_sam

    scores = score_phantoms(load_sam(str(arguments.out)), HELD_OUT)
    told = {value: {"dice": float(np.mean(dice)), "masks": len(dice)} for value, dice in scores.items()}
    print(json.dumps(told, indent=1))


def make_pictures(data: Path, folder: Path) -> None:
    """Write the pictures of every source that is not there yet."""
    size = ARCHITECTURE["size"]
    for source, count in COUNTS.items():
        if (folder / f"{source}.images.npy").exists():
            continue
        rng = np.random.default_rng(SEED)
        pairs: Iterator[Pair]
        if source == "drawn":
            pairs = (drawn(rng, size) for _ in itertools.count())
        elif source == "phantom":
            pairs = phantoms(rng, size)
        else:
            pairs = itertools.chain.from_iterable(read() for read in real(data, SPLIT, rng, size, PER_VOLUME))
        print(f"{write_pool(folder, source, pairs, count)} pictures: {source}", flush=True)


if __name__ == "__main__":
    main()
