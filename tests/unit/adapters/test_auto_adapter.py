"""The default adapter: appearance by a network that was trained on disturbed features, joined with place."""

import pytest
import torch
from torch.nn.functional import one_hot

from fewshot.adapters import ADAPTERS
from fewshot.adapters.auto import FLOOR, AutoAdapter, joined
from fewshot.adapters.samples import Samples
from fewshot.errors import FewshotError

DIM, LABELS = 10, 2


def samples(counts, *, slices=12, spread=0.6, seed=0):
    """Classes around axes of their own, so many pixels of each."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = 4 * torch.eye(DIM)[: len(counts)]
    features = centres[targets] + spread * torch.randn(len(targets), DIM, generator=generator)
    possible = one_hot(targets, len(counts)).bool()
    return Samples(features, targets, torch.arange(len(targets)) % slices, possible, torch.ones(len(targets)))


def fitted(of=None, *, seed=0, **options):
    adapter = ADAPTERS["auto"].create(DIM, LABELS, {"epochs": 4, **options})
    scores = adapter.fit(of or samples([300, 100, 100]), seed=seed)
    return adapter.eval(), scores


def predicted(adapter, features):
    row = features.reshape(1, 1, -1, DIM)
    return adapter.predict(row, torch.zeros(1), torch.arange(float(row.shape[2])))[0, 0]


def test_it_learns_and_runs_all_epochs():
    adapter, scores = fitted(epochs=12, patience=1)
    assert scores["epochs"] == 12, "held-out pixels of the same patients do not end the training"
    assert scores["accuracy"] > 0.9
    fresh = samples([50, 50, 50], seed=7)
    assert (predicted(adapter, fresh.features).argmax(-1) == fresh.targets).float().mean() > 0.95


def test_a_rare_label_is_not_drowned():
    adapter, _ = fitted(samples([3000, 600, 3], spread=0.3), epochs=8)
    fresh = samples([1, 1, 60], spread=0.3, seed=3)
    assert (predicted(adapter, fresh.features[2:]).argmax(-1) == 2).float().mean() > 0.8


def test_a_label_of_a_single_pixel_can_be_fitted():
    adapter, scores = fitted(samples([100, 30, 1]))
    assert torch.isfinite(predicted(adapter, samples([5, 5, 5]).features)).all()
    assert 0 <= scores["accuracy"] <= 1


def test_a_feature_without_spread_disturbs_nothing():
    of = samples([60, 30, 30])
    of.features[:, 3] = 7.0
    adapter, _ = fitted(of)
    assert torch.isfinite(predicted(adapter, of.features)).all()


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    one = ADAPTERS["auto"].create(DIM, LABELS, {"epochs": 4})
    before = torch.get_rng_state()
    one.fit(samples([300, 100, 100]), seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    other, _ = fitted(seed=5)
    third, _ = fitted(seed=6)
    for name, value in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)
    assert not torch.equal(third.network.first.weight, one.network.first.weight)


def test_dropout_is_off_when_predicting():
    adapter, _ = fitted(dropout=0.8)
    features = samples([20, 20, 20]).features
    assert torch.equal(predicted(adapter, features), predicted(adapter, features))


@pytest.mark.parametrize(
    "options",
    [
        {"noise": -0.1},
        {"noise": 10},
        {"dropout": 1.0},
        {"dropout": -0.5},
        {"weight": -1},
        {"weight": 10.0},
        {"weight": True},
        {"blur": -0.01},
        {"blur": "wide"},
        {"hidden": [64]},
        {"hidden": [64, 0]},
        {"epochs": 0},
        {"choose": 1},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_by_name(options):
    with pytest.raises(FewshotError, match=f"Option {next(iter(options))} of adapter auto is .*; give"):
        ADAPTERS["auto"].create(DIM, LABELS, options)


def test_settings_at_the_edge_of_their_range_work():
    adapter, _ = fitted(noise=0.0, dropout=0, weight=0, blur=0.0, hidden=[4, 3], choose=False)
    assert adapter.options.hidden == (4, 3)
    again = AutoAdapter.from_config(adapter.config(), adapter.state_dict())
    assert again.options == adapter.options


def random_distributions(seed, classes=LABELS + 1):
    return torch.randn(40, 30, classes, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(-1)


def test_where_every_place_is_alike_appearance_decides():
    appearance, prior = random_distributions(0), torch.full((40, 30, 3), 1 / 3)
    torch.testing.assert_close(joined(appearance, prior, 1.0), appearance, atol=1e-3, rtol=1e-3)
    for weight in (0.35, 0.75, 1.25):
        assert torch.equal(joined(appearance, prior, weight).argmax(-1), appearance.argmax(-1))


def test_without_weight_the_prior_decides():
    appearance, prior = random_distributions(0), random_distributions(1)
    expected = (prior + FLOOR) / (1 + 3 * FLOOR)
    torch.testing.assert_close(joined(appearance, prior, 0.0), expected)
    adapter = ADAPTERS["auto"].create(DIM, LABELS, {"weight": 0})
    torch.testing.assert_close(adapter.join(appearance, prior), expected)


def test_it_is_bayes_rule():
    appearance, prior = random_distributions(0).clamp(min=1e-3), random_distributions(1)
    result = joined(appearance, prior, 0.75)
    torch.testing.assert_close(result.sum(-1), torch.ones(40, 30))
    odds = result[..., 1] / result[..., 2]
    by_hand = (appearance[..., 1] / appearance[..., 2]) ** 0.75 * (
        (prior[..., 1] + FLOOR) / (prior[..., 2] + FLOOR)
    )
    torch.testing.assert_close(odds, by_hand, rtol=1e-3, atol=0)


def test_a_wrong_place_cannot_forbid_what_is_plain_to_see():
    sure = torch.tensor([0.001, 0.998, 0.001])
    unsure = torch.tensor([0.2, 0.6, 0.2])
    elsewhere = torch.tensor([1.0, 0.0, 0.0])
    assert joined(sure, elsewhere, 0.75).argmax() == 1
    assert joined(unsure, elsewhere, 0.75).argmax() == 0


def test_a_network_that_is_wrong_and_sure_can_be_corrected():
    wrong = torch.tensor([1.0, 0.0, 0.0])
    inside = torch.tensor([0.0, 1.0, 0.0])
    result = joined(wrong, inside, 0.35)
    assert torch.isfinite(result).all()
    assert result.argmax() == 1
