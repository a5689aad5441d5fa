"""The narrow space, and votes of pixels of doubtful class."""

import pytest
import torch

from fewshot.adapters.references import Projection, kinds_of, share_votes


def test_directions_are_those_of_standardised_features():
    features = 3 + torch.randn(200, 6) * torch.tensor([1.0, 5, 2, 1, 0.1, 9])
    projection = Projection(6)
    projection.fit(features, 64)
    standard = (features - features.mean(0)) / features.std(0, correction=0)
    torch.testing.assert_close(
        projection.directions(features), torch.nn.functional.normalize(standard, dim=1), atol=1e-4, rtol=1e-3
    )


def test_the_components_with_most_variance_are_kept():
    generator = torch.Generator().manual_seed(0)
    hidden, turned = torch.randn(500, 2, generator=generator), torch.randn(2, 20, generator=generator)
    features = hidden @ turned + 1e-3 * torch.randn(500, 20, generator=generator)
    projection = Projection(20)
    projection.fit(features, 2)
    assert projection(features).shape == (500, 2)
    whole = Projection(20)
    whole.fit(features, 20)
    cosines = [p.directions(features) @ p.directions(features).T for p in (projection, whole)]
    torch.testing.assert_close(*cosines, atol=0.03, rtol=0)


def test_a_constant_feature_does_no_harm():
    features = torch.randn(50, 4)
    features[:, 2] = 7
    projection = Projection(4)
    projection.fit(features, 3)
    assert projection(features).isfinite().all()


def test_kinds_are_the_different_rows():
    possible = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 0, 1], [0, 1, 0]]).bool()
    kinds, members = kinds_of(possible)
    assert len(kinds) == 3
    torch.testing.assert_close(kinds[members], possible)


def test_votes_for_certain_classes_are_the_probabilities():
    kinds = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 1, 0]]).bool()
    votes = torch.tensor([[0.5, 0.3, 0.2]])
    torch.testing.assert_close(share_votes(votes, kinds), torch.tensor([[0.3, 0.2, 0.5]]))


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0]),  # "background or 1" and "background or 2": background
        ([0.5, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0]),  # "background or 1" and "1": label 1
        ([0.0, 0.5, 0.5, 0.0], [0.5, 0.5, 0.0]),  # "background or 2" and "1": of label 2 nothing speaks
        ([0.4, 0.4, 0.0, 0.2], [0.8, 0.0, 0.2]),
    ],
)
def test_doubtful_votes_go_where_the_others_point(votes, expected):
    kinds = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]]).bool()
    shared = share_votes(torch.tensor([[votes]]), kinds)
    torch.testing.assert_close(shared.sum(-1), torch.ones(1, 1))
    likelihood = [
        (torch.tensor(votes) * (kinds.float() @ row).clamp(min=1e-9).log()).sum()
        for row in (shared[0, 0], torch.tensor(expected))
    ]
    assert likelihood[0] > likelihood[1] - 0.03
