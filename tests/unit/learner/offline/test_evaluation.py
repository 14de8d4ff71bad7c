"""The protocol beside a loop: every item ranked, the own history left out, both splits, with and without counts."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from msgspec import convert
from torch.nn import functional as F

from learner.metrics import UNRANKED
from learner.model.config import ModelConfig
from learner.model.elcrec import ELCRec
from learner.offline.config import CountsConfig
from learner.offline.counts import ItemCounts
from learner.offline.evaluation import Mixture, evaluate
from learner.offline.sequences import Sequences, Split, read_sequences

MODEL = convert({"max_len": 4, "encoder": {"hidden": 8}, "intents": {"count": 3, "queue": 8}}, ModelConfig)
LINES = ["a 1 2 3 4 5 6 7", "b 3 2 1", "c 8 6 4 2", "d 5 5 6 5", "e 2 4 6 8 7"]  # d takes the same again


@pytest.fixture
def data(tmp_path: Path) -> Sequences:
    path = tmp_path / "data.txt"
    path.write_text("\n".join(LINES) + "\n")
    return read_sequences(path)


@pytest.fixture
def model() -> ELCRec:
    return ELCRec(MODEL, 8, torch.Generator().manual_seed(5)).eval()


def slow_ranks(model: ELCRec, split: Split, counts: ItemCounts | None) -> list[int]:
    ranks = []
    for line in LINES:
        items = [int(word) for word in line.split()[1:]]
        seen, answer = (items[:-1], items[-1]) if split == "test" else (items[:-2], items[-2])
        with torch.no_grad():
            scores = model.scores(model.user(torch.tensor([seen[-4:]])))[0]
        if counts is not None:
            shares = counts.scores(np.array([seen[-4:]]))[0, 1:]
            scores = 0.5 * F.log_softmax(scores, dim=0) + torch.log(torch.from_numpy(shares) + 0.01)
        others = [item for item in range(1, 9) if item not in seen and item != answer]
        better = sum(bool(scores[item - 1] >= scores[answer - 1]) for item in others)
        ranks.append(UNRANKED if answer in seen else better)
    return ranks


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_a_look_back_ranks_from_two_outputs(data: Sequences, pool: str) -> None:
    """The user is four fifths of the newest output and a fifth of what the history gives without its newest item."""
    given = {**msgspec.to_builtins(MODEL), "lookback": 0.2, "pool": pool, "encoder": {"hidden": 8, "positions": "none"}}
    model = ELCRec(convert(given, ModelConfig), 8, torch.Generator().manual_seed(5)).eval()
    expected = []
    for line in LINES:
        items = [int(word) for word in line.split()[1:]]
        with torch.no_grad():
            outputs = [
                model.encoder.last(model.embed(torch.tensor([seen])))[0] for seen in (items[-5:-1], items[-5:-2])
            ]
            scores = (0.8 * outputs[0] + 0.2 * outputs[1]) @ model.items[1:9].T
        others = [item for item in range(1, 9) if item not in items]
        better = sum(bool(scores[item - 1] >= scores[items[-1] - 1]) for item in others)
        expected.append(UNRANKED if items[-1] in items[:-1] else better)
    assert evaluate(model, data, "test").ranks.tolist() == expected


def test_a_look_back_needs_an_item_to_look_back_to() -> None:
    model = ELCRec(msgspec.structs.replace(MODEL, lookback=0.2), 8, torch.Generator().manual_seed(5)).eval()
    alone, padded, two = (model.user(torch.tensor([row])) for row in ([3], [0, 3], [3, 4]))
    newest = model.encoder.last(model.embed(torch.tensor([[3]])))
    torch.testing.assert_close(alone, newest)
    torch.testing.assert_close(padded, newest)
    assert not torch.allclose(two, model.encoder.last(model.embed(torch.tensor([[3, 4]]))))


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("mixed", [False, True])
def test_ranks_and_figures_are_the_loop(model: ELCRec, data: Sequences, split: Split, mixed: bool) -> None:
    counts = ItemCounts(CountsConfig(), data.items, data.offsets, 8) if mixed else None
    mixture = None if counts is None else Mixture(counts, 0.5, 0.01)
    done: list[int] = []
    outcome = evaluate(model, data, split, mixture, tick=done.append)
    expected = slow_ranks(model, split, counts)
    assert outcome.ranks.tolist() == expected
    assert sum(done) == len(LINES)
    figures = outcome.figures()
    assert figures["users"] == len(LINES)
    for k in (5, 10, 20):
        found = [rank for rank in expected if rank != UNRANKED and rank < k]
        assert figures[f"hr@{k}"] == pytest.approx(len(found) / len(LINES))
        assert figures[f"ndcg@{k}"] == pytest.approx(sum(1 / math.log2(rank + 2) for rank in found) / len(LINES))


def test_intents_are_counted(model: ELCRec, data: Sequences) -> None:
    outcome = evaluate(model, data, "test")
    histories = [line.split()[1:-1][-4:] for line in LINES]
    with torch.no_grad():
        users = [model.user(torch.tensor([[int(item) for item in history]])) for history in histories]
        nearest = [int(model.intents.nearest(user).intent) for user in users]
    assert outcome.intents.tolist() == nearest
    shares = np.bincount(nearest) / len(nearest)
    entropy = -sum(share * math.log(share) for share in shares if share)
    figures = outcome.figures()
    assert figures["intents.active"] == len(set(nearest))
    assert figures["intents.effective"] == pytest.approx(math.exp(entropy), rel=1e-5)
