"""One template of a real data set finds the structure in other patients."""

import numpy as np
import pytest

from fewshot.dataset import Dataset
from fewshot.features import FeatureBank, load_backbone
from fewshot.pipeline import fit, predict


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    return {"backbone": load_backbone("embedded"), "bank": FeatureBank(tmp_path_factory.mktemp("bank"))}


def mean_dice(dataset, model, names, tools):
    scores = []
    for name in names:
        case = dataset.cases[name]
        volume = dataset.volume(case)
        truth, found = dataset.label_map(case, volume), predict(volume, model, **tools).labels
        for label, value in model.labels.items():
            mine, theirs = found == value, truth == dataset.labels[label]
            scores.append(2 * (mine & theirs).sum() / max(1, mine.sum() + theirs.sum()))
    return np.mean(scores)


@pytest.mark.parametrize("adapter", ["classification", "contrastive"])
@pytest.mark.parametrize(
    ("name", "template", "queries", "floor"),
    [
        (
            "mr_hippocampus_msd",
            "hippocampus_003",
            ["hippocampus_006", "hippocampus_007", "hippocampus_011"],
            0.5,
        ),
        ("xray_lungs_montgomery", "MCUCXR_0004_0", ["MCUCXR_0008_0", "MCUCXR_0399_1"], 0.8),
    ],
)
def test_one_template_is_enough(data, tools, name, template, queries, floor, adapter):
    dataset = Dataset.open(data / name)
    model = fit([dataset.template(dataset.cases[template])], adapter=adapter, labels=dataset.labels, **tools)
    assert mean_dice(dataset, model, queries, tools) > floor


def test_trained_adapters_beat_the_basic_one(data, tools):
    """The paper's point, on the set where this backbone shows it clearly."""
    dataset = Dataset.open(data / "mr_hippocampus_msd")
    template = dataset.template(dataset.cases["hippocampus_003"])
    scores = {
        adapter: mean_dice(dataset, fit([template], adapter=adapter, **tools), ["hippocampus_006"], tools)
        for adapter in ("basic", "contrastive")
    }
    assert scores["contrastive"] > scores["basic"] + 0.1
