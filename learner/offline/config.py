"""Configuration of `intentstream fit`: pair counts and training."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from learner.model.config import ModelConfig

DeviceName = Literal["auto", "cpu", "cuda"]


class CountsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How pairs are counted. The defaults were chosen on the validation items of Beauty."""

    window: Annotated[int, Meta(ge=1, le=1024, description="largest distance of a pair; items")] = 50
    fade: Annotated[float, Meta(gt=0, le=1, description="decay of a pair's weight per item of distance; factor")] = 0.9
    backward: Annotated[float, Meta(ge=0, le=1, description="weight of the reversed pair; factor")] = 0.3
    damping: Annotated[
        float, Meta(ge=0, le=1, description="counts are divided by (n_x n_y) to this power; exponent")
    ] = 0.2
    recency: Annotated[
        float, Meta(ge=0, le=4, description="an item counts 1 / place^recency, newest first; exponent")
    ] = 1.5


class FitConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of a training; equal settings, data and machine give equal bits."""

    model: ModelConfig = ModelConfig()
    counts: CountsConfig | None = CountsConfig()
    learning_rate: Annotated[float, Meta(gt=0, le=1, description="Adam; per step")] = 1e-3
    batch_users: Annotated[int, Meta(ge=1, le=1_000_000, description="most sequences in a batch; users")] = 256
    batch_positions: Annotated[
        int, Meta(ge=1, le=100_000_000, description="most positions in a batch, unless one sequence is longer; items")
    ] = 1024
    batches: Annotated[
        Literal["length", "random"],
        Meta(
            description="length: users of similar length, hardly any padding; random: any users, as in the authors' "
            "code, each counted as max_len positions"
        ),
    ] = "length"
    epochs: Annotated[int, Meta(ge=1, le=100_000, description="most passes over the data; epochs")] = 60
    patience: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="epochs without a better validation NDCG@20 after which training stops; epochs",
        ),
    ] = 10
    evaluate_every: Annotated[int, Meta(ge=1, le=1000, description="epochs between validations; epochs")] = 2
    average: Annotated[
        float,
        Meta(
            ge=0,
            lt=1,
            description="moving average of the weights, which is validated and saved; decay per step, 0 = off",
        ),
    ] = 0.999
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Meta(
            description="of products; auto: the full softmax's in bfloat16 where the processor multiplies it natively; "
            "bfloat16: the encoder's too"
        ),
    ] = "auto"
    members: Annotated[int, Meta(ge=1, le=16, description="networks with seeds from `seed` on, averaged; count")] = 1
    seed: Annotated[int, Meta(ge=0, le=2**62, description="seed of every draw; number")] = 0
    device: Annotated[
        DeviceName, Meta(description="device of the training; auto: cuda where torch sees a graphics card, else cpu")
    ] = "auto"


__all__ = ["CountsConfig", "DeviceName", "FitConfig"]
