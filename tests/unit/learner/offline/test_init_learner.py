"""A fitted model starts the stream, and keeps learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from learner.config import LearnerConfig
from learner.errors import LearnerStateError, ModelFileError
from learner.model.config import EncoderConfig, IntentConfig, ModelConfig
from learner.model.elcrec import ELCRec
from learner.offline.files import Fitted, load_fitted, save_fitted
from learner.offline.init_learner import matching, start_from
from learner.online.histories import Histories
from learner.online.learner import Learner
from learner.online.step import StepBatch

MODEL = ModelConfig(
    max_len=6,
    encoder=EncoderConfig(hidden=8, positions="relative"),
    intents=IntentConfig(count=3, queue=16),
)
ITEMS = ("tea", "nut", "cup", "oil", "pot", "salt", "rice")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = ELCRec(MODEL, len(ITEMS), torch.Generator().manual_seed(3)).eval()
    save_fitted(tmp_path / "model", Fitted(model, ITEMS, None, {}))
    return tmp_path / "model"


def config(folder: Path) -> LearnerConfig:
    return matching(LearnerConfig(), load_fitted(folder))


def test_a_fitted_model_starts_the_stream_and_goes_on_learning(folder: Path) -> None:
    learner = Learner(config(folder))
    assert start_from(learner, folder) == len(ITEMS)
    handles = learner.lookup(ITEMS)
    assert (handles != 0).all() and learner.item_ids(handles) == list(ITEMS)
    histories = np.zeros((2, 6), np.int64)
    histories[0, -2:], histories[1, -1] = handles[:2], handles[4]
    model = load_fitted(folder).model
    vectors = torch.nn.functional.normalize(model.items[1:], dim=-1)
    centers = learner._parts.network.centers.unit()
    # centers are means of fitted items, so that every one of them is the nearest of some
    assert len(set((vectors @ centers.T).argmax(1).tolist())) == len(centers)
    assert (learner.intents(Histories.of_items(histories)).nearest >= 0).all()
    n = 40
    batch = StepBatch(
        users=np.arange(n, dtype=np.uint64),
        histories=Histories.of_items(np.tile(histories[:1], (n, 1))),
        items=np.tile(handles[2:4], n // 2),
        weights=np.ones(n, np.float32),
        ts=np.arange(n, dtype=np.int64),
    )
    learner.observe(batch, evaluate=True)
    assert learner.learn(2).steps >= 1


def test_only_a_learner_that_has_seen_nothing_can_be_started(folder: Path) -> None:
    learner = Learner(config(folder))
    learner.admit(["tea"], np.zeros(1, np.int64))
    with pytest.raises(LearnerStateError, match="holds 1 items"):
        start_from(learner, folder)


def test_another_shape_is_refused(folder: Path) -> None:
    with pytest.raises(
        ModelFileError, match=r"set learner.max_len = 6, learner.encoder.hidden = 8, .*learner.intents.count = 3$"
    ):
        start_from(Learner(LearnerConfig()), folder)
    with pytest.raises(ModelFileError, match="7 items, learner.capacity is 5"):
        start_from(Learner(replace(config(folder), capacity=5)), folder)
