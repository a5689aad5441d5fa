"""Target-guided attention and target-semantic prompting: what PerSAM changes inside SAM's mask decoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def guided(transformer: nn.Module, attention: Tensor | None, feature: Tensor | None) -> Iterator[None]:
    """Change a mask decoder's transformer for as long as the block lasts.

    As in the authors' code, which goes a little beyond the paper's formulas: the target feature is added to the
    prompt tokens themselves, so that their positional encoding holds it too, again to the queries before every block
    but the first, and to those of the last attention.

    Args:
        transformer: the ``TwoWayTransformer`` of the package segment_anything.
        attention: ``[h * w]``, see `attend`; None leaves the attention as it is.
        feature: ``[C]``, added to the tokens; None adds nothing.
    """
    handles = []

    def add_to_tokens(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        image, position, tokens = args
        assert feature is not None
        return image, position, tokens + feature.to(tokens)

    def add_to(name: str) -> Any:
        def add(_: nn.Module, args: Any, given: dict[str, Tensor]) -> Any:
            assert feature is not None
            return args, {**given, name: given[name] + feature.to(given[name])}

        return add

    def look(module: nn.Module, _: Any, given: dict[str, Tensor], __: Tensor) -> Tensor:
        assert attention is not None
        return attend(module, **given, attention=attention)

    layers: Any = transformer.layers
    if feature is not None:
        handles.append(transformer.register_forward_pre_hook(add_to_tokens))
        handles += [
            layer.register_forward_pre_hook(add_to("queries"), with_kwargs=True) for layer in layers[1:]
        ]
        final: Any = transformer.final_attn_token_to_image
        handles.append(final.register_forward_pre_hook(add_to("q"), with_kwargs=True))
    if attention is not None:
        handles += [
            layer.cross_attn_token_to_image.register_forward_hook(look, with_kwargs=True) for layer in layers
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attend(module: Any, q: Tensor, k: Tensor, v: Tensor, attention: Tensor) -> Tensor:
    """Attention whose weights are raised by a map and brought to a sum of 1 by another softmax.

    Args:
        module: an ``Attention`` of the package segment_anything.
        q: ``[P, N, C]`` of tokens.
        k: ``[P, h * w, C]`` of the image.
        v: the same shape.
        attention: ``[h * w]``.
    """
    heads = module.num_heads
    query, key, value = (
        project(of).unflatten(-1, (heads, -1)).transpose(1, 2)
        for project, of in ((module.q_proj, q), (module.k_proj, k), (module.v_proj, v))
    )
    weights = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1)
    weights = (weights + attention.to(weights)).softmax(-1)
    return module.out_proj((weights @ value).transpose(1, 2).flatten(2))
