"""The random walk on real images: it follows edges that an adapter's coarse features miss."""

import numpy as np
import pytest

from fewshot.dataset import Dataset
from fewshot.features import FeatureBank, load_backbone
from fewshot.pipeline import fit, predict
from fewshot.refine import refine
from fewshot.refine.walker import WalkerOptions, WalkerRefiner


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    return {"backbone": load_backbone("embedded"), "bank": FeatureBank(tmp_path_factory.mktemp("bank"))}


def mean_dice(labels, truth, values):
    return np.mean(
        [
            2 * ((labels == v) & (truth == v)).sum() / ((labels == v).sum() + (truth == v).sum())
            for v in values
        ]
    )


@pytest.mark.parametrize(
    ("name", "template", "queries", "gain"),
    [
        ("mr_hippocampus_msd", "hippocampus_003", ["hippocampus_006", "hippocampus_007"], 0.02),
        ("xray_lungs_montgomery", "MCUCXR_0004_0", ["MCUCXR_0008_0", "MCUCXR_0399_1"], 0.0),
    ],
)
def test_it_raises_the_dice_of_contrastive(data, tools, name, template, queries, gain):
    dataset = Dataset.open(data / name)
    model = fit(
        [dataset.template(dataset.cases[template])], adapter="contrastive", labels=dataset.labels, **tools
    )
    walker = WalkerRefiner(WalkerOptions())
    before, after = [], []
    for query in queries:
        volume = dataset.volume(dataset.cases[query])
        truth = dataset.label_map(dataset.cases[query], volume)
        found = predict(volume, model, probabilities=True, **tools)
        values = list(dataset.labels.values())
        before.append(mean_dice(found.labels, truth, values))
        after.append(mean_dice(refine(volume, found, walker).labels, truth, values))
    assert np.mean(after) - np.mean(before) > gain
