from __future__ import annotations

from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.model.config import EncoderConfig
from learner.model.encoder import Encoder, Layer, dropout
from learner.model.ragged_batch import RaggedBatch

VARIANTS: list[dict[str, Any]] = [
    {},
    {"layers": 2},
    {"norm": "pre"},
    {"positions": "relative"},
    {"positions": "none", "frequency": 0.5},
    {"norm": "pre", "frequency": 0.3, "layers": 2},
]


def make(variant: dict[str, Any], max_len: int = 8) -> Encoder:
    encoder = Encoder(EncoderConfig(hidden=8, **variant), max_len, torch.Generator().manual_seed(0)).double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return encoder


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 8), pad=st.integers(0, 5), seed=st.integers(0, 2**31))
def test_padding_changes_nothing(variant: dict[str, Any], length: int, pad: int, seed: int) -> None:
    encoder = make(variant)
    T = min(8, length + pad)
    x = torch.randn(2, T, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    valid = (torch.arange(T) >= T - length).expand(2, T)
    padded, bare = encoder(x, valid), encoder(x[:, T - length :])
    torch.testing.assert_close(padded[:, T - length :], bare)
    assert torch.isfinite(padded).all()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 8), min_size=1, max_size=3), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
)
def test_histories_in_blocks_are_as_if_each_were_alone(
    variant: dict[str, Any], lengths: list[list[int]], seed: int, padded: bool
) -> None:
    """Outputs, and the gradient of what goes in."""
    encoder, generator = make(variant), torch.Generator().manual_seed(seed)
    there = [torch.arange(max(block)) >= max(block) - torch.tensor(block)[:, None] for block in lengths]
    x = [torch.randn(*block.shape, 8, dtype=torch.float64, generator=generator).requires_grad_() for block in there]
    layout = RaggedBatch(there, padded=padded)
    together = layout.blocks(encoder.ragged(layout.flat(x), layout))
    found = [h[present] for h, block in zip(together, there, strict=True) for h, present in zip(h, block, strict=True)]
    alone = [
        encoder(row[present][None])[0]
        for rows, block in zip(x, there, strict=True)
        for row, present in zip(rows, block, strict=True)
    ]
    for one, other in zip(found, alone, strict=True):
        torch.testing.assert_close(one, other)
    weight = torch.randn(8, dtype=torch.float64, generator=generator)
    slopes = [torch.autograd.grad((torch.cat(outputs) @ weight).square().sum(), x) for outputs in (found, alone)]
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_future_is_not_seen(variant: dict[str, Any]) -> None:
    encoder = make(variant)
    x = torch.randn(3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    later = x.clone()
    later[:, 4:] = torch.randn(3, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(encoder(x)[:, :4], encoder(later)[:, :4])
    assert not torch.allclose(encoder(x)[:, 4], encoder(later)[:, 4])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_last_is_the_newest_position(variant: dict[str, Any]) -> None:
    encoder = make(variant)
    x = torch.randn(3, 6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    valid = torch.tensor([[False] * 5 + [True], [True] * 6, [False] * 2 + [True] * 4])
    torch.testing.assert_close(encoder.last(x, valid), encoder(x, valid)[:, -1])
    torch.testing.assert_close(encoder.last(x), encoder(x)[:, -1])


def test_dropout_comes_from_its_generator_only() -> None:
    encoder = Encoder(EncoderConfig(hidden=8), 4, torch.Generator().manual_seed(0)).train()
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    one, two = (encoder(x, None, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, encoder(x))
    assert torch.equal(encoder(x), encoder.eval()(x, None, torch.Generator().manual_seed(7)))
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_keeps_the_mean() -> None:
    x = torch.ones(100_000)
    dropped = dropout(x, 0.3, torch.Generator().manual_seed(0))
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_too_long_a_history_is_refused() -> None:
    with pytest.raises(ValueError, match="got 9 positions, more than max_len = 8"):
        make({})(torch.zeros(1, 9, 8, dtype=torch.float64))


def test_heads_must_divide_hidden() -> None:
    with pytest.raises(ValueError, match="encoder.heads = 3 must divide encoder.hidden = 8"):
        EncoderConfig(hidden=8, heads=3)


def test_config_round_trip() -> None:
    config = EncoderConfig(hidden=32, norm="pre", frequency=0.25)
    assert msgspec.json.decode(msgspec.json.encode(config), type=EncoderConfig) == config


@pytest.mark.parametrize("variant", [{}, {"positions": "relative"}], ids=str)
@pytest.mark.parametrize("attention_dropout", [0.0, 0.5])
def test_attention_of_the_last_position_is_that_over_keys_and_values(
    variant: dict[str, Any], attention_dropout: float
) -> None:
    """Values and gradients beside a loop over users and heads that makes every key and value."""
    B, T, d, H = 3, 5, 8, 2
    layer = make({**variant, "attention_dropout": attention_dropout}).layers[0]
    assert isinstance(layer, Layer)
    x = torch.randn(B, T, d, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    valid = torch.arange(T) >= torch.tensor([[0], [3], [T - 1]])
    mask = torch.zeros(B, 1, T, T, dtype=torch.float64).masked_fill_(~valid[:, None, None, :], -1e4)
    layout = RaggedBatch([valid], padded=True)
    found = layer(x.flatten(0, 1), layout, [mask], torch.Generator().manual_seed(5), True)

    query, key, value = layer.qkv(x).split(d, dim=-1)  # (B, T, d) each
    scores = torch.stack(
        [
            torch.stack(
                [
                    key[b, :, of] @ query[b, -1, of] / (d // H) ** 0.5
                    + mask[b, 0, -1]
                    + (0 if layer.bias is None else torch.stack([layer.bias[h, T - 1 - t] for t in range(T)]))
                    for h, of in enumerate((slice(0, 4), slice(4, 8)))
                ]
            )
            for b in range(B)
        ]
    )  # (B, H, T)
    generator = torch.Generator().manual_seed(5)
    weights = dropout(scores.softmax(-1), attention_dropout, generator)
    seen = torch.stack(
        [torch.cat([weights[b, 0] @ value[b, :, :4], weights[b, 1] @ value[b, :, 4:]]) for b in range(B)]
    )
    c = layer.config
    asked = layer.attention_norm(x[:, -1] + dropout(layer.out(seen), c.dropout, generator))
    inner = dropout(layer.down(torch.nn.functional.gelu(layer.up(asked))), c.dropout, generator)
    expected = layer.norm(asked + inner)

    torch.testing.assert_close(found, expected)
    of = [x, *layer.parameters()]
    weight = torch.randn(B, d, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    for mine, theirs in zip(
        torch.autograd.grad((found * weight).sum(), of, allow_unused=True),
        torch.autograd.grad((expected * weight).sum(), of, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
