"""A hub on this machine and an empty cache, for downloads without any network."""

import pytest
from huggingface_hub import constants
from safetensors.torch import save

from tests.unit.features.hub import serve_hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of downloads, in place of the user's."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for proxy in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path / "hub cache"


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """A cut-down DINOv2 as timm's repositories on the hub hold it."""
    from tests.unit.features.published import publish

    model = publish("dinov2_with_registers", tmp_path_factory.mktemp("published") / "model")
    return save(model.timm())


@pytest.fixture
def hub(cache, weights_file, monkeypatch):
    with serve_hub(weights_file) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


@pytest.fixture
def no_network(cache, monkeypatch):
    """An address on which nobody listens."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
