"""Laws that hold for every registered adapter, and those of the single ones."""

import pytest
import torch
from torch.nn.functional import cosine_similarity, softmax

from fewshot.adapters import ADAPTERS, Samples
from fewshot.adapters.classification import marginal_cross_entropy
from fewshot.adapters.contrastive import mean_softmax, own_class_weights
from fewshot.adapters.pixels import to_pixels
from fewshot.errors import FewshotError

DIM = 12
FAST = {name: {"epochs": 12} if kind.trained else {} for name, kind in ADAPTERS.items()}


def clusters(labels: int, *, per_class: int = 120, slices: int = 8, seed: int = 0) -> Samples:
    """Well separated classes; class 0 around the origin."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(labels + 1).repeat_interleave(per_class)
    centres = torch.cat([torch.zeros(1, DIM), 6 * torch.eye(DIM)[:labels]])
    features = centres[targets] + 0.7 * torch.randn(len(targets), DIM, generator=generator)
    possible = torch.nn.functional.one_hot(targets, labels + 1).bool()
    return Samples(features, targets, torch.arange(len(targets)) % slices, possible, torch.ones(len(targets)))


@pytest.fixture(scope="module", params=[(name, labels) for name in ADAPTERS for labels in (1, 3)], ids=str)
def fitted(request):
    name, labels = request.param
    adapter = ADAPTERS[name].create(DIM, labels, FAST[name])
    adapter.fit(clusters(labels), seed=3)
    return adapter


def test_probabilities_sum_to_one(fitted):
    maps = 4 * torch.randn(2, 3, 4, DIM)
    predicted = fitted.predict(maps, torch.linspace(0, 2, 9), torch.linspace(0, 3, 7))
    assert predicted.shape == (2, 9, 7, fitted.labels + 1)
    torch.testing.assert_close(predicted.sum(-1), torch.ones(2, 9, 7))
    assert predicted.min() >= 0


def test_separable_classes_are_found(fitted):
    held = clusters(fitted.labels, seed=9)
    maps = held.features.reshape(1, 1, -1, DIM)
    columns = torch.arange(len(held), dtype=torch.float32)
    predicted = fitted.predict(maps, torch.zeros(1), columns)[0, 0].argmax(-1)
    recalls = [(predicted[held.targets == k] == k).float().mean() for k in range(fitted.labels + 1)]
    assert min(recalls) > (0.9 if fitted.trained else 0.6), recalls


def test_same_seed_same_model(fitted):
    again = type(fitted).create(DIM, fitted.labels, FAST[fitted.name])
    torch.rand(5)  # the global random state must not matter
    again.fit(clusters(fitted.labels), seed=3)
    for name, value in fitted.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)


def test_config_and_state_describe_the_adapter(fitted):
    again = type(fitted).from_config(fitted.config(), fitted.state_dict())
    maps = torch.randn(1, 4, 4, DIM)
    grid = torch.linspace(0, 3, 11)
    torch.testing.assert_close(again.predict(maps, grid, grid), fitted.predict(maps, grid, grid))


def test_fit_reports_every_epoch_and_scores(fitted):
    seen = []
    adapter = type(fitted).create(DIM, fitted.labels, FAST[fitted.name])
    scores = adapter.fit(clusters(fitted.labels), progress=lambda *a, **values: seen.append((a, values)))
    assert seen
    if fitted.trained:
        assert [args[1] for args, _ in seen] == list(range(1, len(seen) + 1))
        assert 0.9 < scores["accuracy"] <= 1
        assert seen[-1][1]["accuracy"] == pytest.approx(scores["accuracy"])


@pytest.mark.parametrize("name", ADAPTERS)
def test_unknown_option_is_refused_with_the_known_ones(name):
    with pytest.raises(FewshotError, match="has no option colour"):
        ADAPTERS[name].create(DIM, 1, {"colour": 1})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("contrastive", {"epochs": "many"}),
        ("contrastive", {"epochs": 0}),
        ("contrastive", {"references": -3}),
        ("contrastive", {"hidden": 64}),
        ("contrastive", {"negatives": 1.5}),
        ("classification", {"balanced": 1}),
        ("classification", {"hidden": [64, 0]}),
        ("classification", {"learning_rate": True}),
        ("basic", {"threshold": 0}),
        ("auto", {"dropout": 1.0}),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_by_name(name, options):
    with pytest.raises(FewshotError, match=f"Option {next(iter(options))} of adapter {name} is .*; give"):
        ADAPTERS[name].create(DIM, 1, options)


def test_a_list_stands_for_a_pair_of_widths():
    assert ADAPTERS["contrastive"].create(DIM, 1, {"hidden": [8, 4]}).options.hidden == (8, 4)


def test_basic_is_the_mean_cosine_to_the_template_pixels():
    samples = clusters(2)
    adapter = ADAPTERS["basic"].create(DIM, 2)
    adapter.fit(samples)
    maps = torch.randn(1, 1, 5, DIM)
    predicted = adapter.predict(maps, torch.zeros(1), torch.arange(5.0))[0, 0]
    for pixel in range(5):
        naive = torch.tensor(
            [
                cosine_similarity(samples.features[samples.targets == k], maps[0, 0, pixel][None])
                .mean()
                .clamp(min=0)
                for k in (1, 2)
            ]
        )
        scores = torch.cat([torch.tensor([0.5]), naive])
        torch.testing.assert_close(predicted[pixel], scores / scores.sum(), atol=1e-4, rtol=1e-4)


def test_basic_prototype_is_the_cosine_to_the_mean_direction():
    samples = clusters(1)
    adapter = ADAPTERS["basic"].create(DIM, 1, {"prototype": True})
    adapter.fit(samples)
    unit = torch.nn.functional.normalize(samples.features[samples.targets == 1], dim=1)
    maps = unit.mean(0).expand(1, 1, 2, DIM) * 7
    predicted = adapter.predict(maps, torch.zeros(1), torch.zeros(1))[0, 0, 0]
    torch.testing.assert_close(
        predicted[1] / predicted[0], torch.tensor(2.0)
    )  # cosine 1 against the threshold 0.5


@pytest.mark.parametrize("labels", [1, 3])
def test_contrastive_equals_naive_pairing(labels):
    """No pair is formed at inference, yet the result is that of forming all of them; equal to 1e-4."""
    adapter = ADAPTERS["contrastive"].create(DIM, labels, {"epochs": 3, "references": 40})
    adapter.fit(clusters(labels))
    maps = 2 * torch.randn(1, 3, 4, DIM)
    grid_y, grid_x = torch.linspace(0, 2, 8), torch.linspace(0, 3, 8)
    pixels = to_pixels(maps, grid_y, grid_x).reshape(-1, DIM)
    with torch.no_grad():
        rows = []
        for pixel in pixels:
            own = torch.zeros(labels)
            for label in range(1, labels + 1):
                templates = adapter.references[adapter.reference_labels == label]
                pairs = torch.cat(
                    [adapter.network(templates), adapter.network(pixel[None]).expand(len(templates), -1)],
                    dim=1,
                )
                own[label - 1] = softmax(adapter.head(pairs), dim=1)[:, label].mean()
            row = torch.cat([(1 - own).prod()[None], own])
            rows.append(row / row.sum())
    fast = adapter.predict(maps, grid_y, grid_x).reshape(-1, labels + 1)
    assert (fast - torch.stack(rows)).abs().max() < 1e-4


@pytest.mark.parametrize("size", [1.0, 30.0, 90.0])
def test_mean_softmax_survives_extreme_logits(size):
    torch.manual_seed(1)
    left, right = size * torch.randn(7, 4), size * torch.randn(50, 4)
    weights = own_class_weights(torch.tensor([1, 1, 2, 3, 3, 3, 2]), 4)
    pairs = softmax(left[:, None].double() + right[None].double(), dim=-1)
    expected = (pairs * weights[:, None].double()).sum(0).float()
    torch.testing.assert_close(mean_softmax(left, right, weights), expected, atol=1e-4, rtol=1e-3)


def test_marginal_loss_is_cross_entropy_when_one_class_is_possible():
    logits, targets = torch.randn(20, 4), torch.randint(4, (20,))
    possible = torch.nn.functional.one_hot(targets, 4).bool()
    torch.testing.assert_close(
        marginal_cross_entropy(logits, possible), torch.nn.functional.cross_entropy(logits, targets)
    )


def test_background_of_a_template_without_a_label_does_not_count_against_it():
    """A label drawn in one template and only hidden in another's background is still found."""
    both = clusters(2, per_class=200)
    second = both.targets == 2
    hidden = second & (
        torch.arange(len(both)) % 2 == 0
    )  # half of label 2 lies in a template where it was not drawn
    targets = torch.where(hidden, 0, both.targets)
    possible = torch.nn.functional.one_hot(targets, 3).bool()
    possible[hidden, 2] = True
    samples = Samples(both.features, targets, both.slices, possible, both.weights)
    for name in ("auto", "classification", "contrastive"):
        adapter = ADAPTERS[name].create(DIM, 2, {"epochs": 15})
        adapter.fit(samples)
        probe = clusters(2, seed=5).features[-120:].reshape(1, 1, -1, DIM)
        found = adapter.predict(probe, torch.zeros(1), torch.arange(120.0))[0, 0].argmax(-1) == 2
        assert found.float().mean() > 0.9, name
