"""The protocol on small data: exact resume, ranking, what may be seen when, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from learner.errors import LearnerError, ModelFileError
from learner.metrics import UNRANKED
from learner.model.config import ModelConfig
from learner.offline.config import CountsConfig, FitConfig
from learner.offline.counts import ItemCounts, count_items
from learner.offline.evaluation import Mixture, choose_mixture, evaluate, ranks_of
from learner.offline.fit import evaluate_folder, fit
from learner.offline.presets import MODERN, PRESETS
from learner.offline.sequences import Sequences, read_sequences
from learner.offline.trainer import FitProgress, Stopped, Trainer, each_epoch
from tests.unit.learner.model.test_centers import normalized_mutual_information

SMALL: dict[str, Any] = {
    "max_len": 12,
    "encoder": {"hidden": 16, "dropout": 0.1, "attention_dropout": 0.1},
    "intents": {"count": 4, "queue": 64},
}


def config(model: dict[str, Any] | None = None, **fields: Any) -> FitConfig:
    base: dict[str, Any] = {
        "model": {**SMALL, **(model or {})},
        "epochs": 4,
        "batch_users": 16,
        "batch_positions": 256,
        "learning_rate": 0.01,
        "average": 0.9,
        "device": "cpu",
    }
    return msgspec.convert({**base, **fields}, FitConfig)


@pytest.fixture
def cycle(tmp_path: Path) -> Sequences:
    """80 users who walk round a ring of 20 items: the next item is certain."""
    rng = np.random.default_rng(0)
    lines = []
    for user in range(80):
        start, length = rng.integers(20), rng.integers(4, 11)
        lines.append(f"{user} " + " ".join(str((start + step) % 20 + 1) for step in range(length)))
    path = tmp_path / "cycle.txt"
    path.write_text("\n".join(lines) + "\n")
    return read_sequences(path)


PAPER = {"next_item": "bce", "sequence_contrast": 0.1, "intent_contrast": 0.1, "pool": "mean"}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"score": "cosine"},
    {"full_softmax_items": 5, "sampled_negatives": 8},
    {**PAPER, "intents": {"count": 4, "clustering": "paper", "weight": 1.0}},
    {**PAPER, "fusion": "concat", "compat": "authors", "intents": {"count": 4, "clustering": "paper"}},
    {"intents": {"count": 1, "clustering": "none"}},
]


DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_resume_gives_the_same_bits(cycle: Sequences, tmp_path: Path, variant: dict[str, Any], device: str) -> None:
    settings = config(variant, device=device)
    whole = fit(settings, cycle, tmp_path / "whole")

    def stop(now: FitProgress) -> None:
        if (now.epoch, now.step) == (3, 2):  # in the middle of an epoch: that epoch is done again
            raise Stopped

    with pytest.raises(Stopped):
        fit(settings, cycle, tmp_path / "broken", stop)
    resumed = fit(settings, cycle, tmp_path / "broken")
    one, two = whole.fitted.model.state_dict(), resumed.fitted.model.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert [entry.loss for entry in whole.log] == [entry.loss for entry in resumed.log]
    assert whole.report["test"] == resumed.report["test"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_model_ranks_the_same_wherever_it_was_fitted(cycle: Sequences, tmp_path: Path, device: str) -> None:
    result = fit(config(device=device, members=2), cycle, tmp_path)
    assert all(value.device.type == "cpu" for value in result.fitted.model.state_dict().values())
    figures = evaluate_folder(tmp_path, cycle)
    assert figures["ndcg@5"] == pytest.approx(result.report["test"]["ndcg@5"], abs=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics card here")
def test_a_graphics_card_that_is_not_there_is_named(cycle: Sequences) -> None:
    with pytest.raises(LearnerError, match=r"device = 'cuda', but torch sees no graphics card"):
        Trainer(config(device="cuda"), cycle)


@pytest.mark.parametrize("order", ["length", "random"])
def test_an_epoch_takes_every_user_once(cycle: Sequences, order: str) -> None:
    trainer = Trainer(config(batches=order, batch_users=7), cycle)
    batches = trainer.batches.epoch()
    assert sorted(torch.cat(batches).tolist()) == np.flatnonzero(cycle.lengths > 3).tolist()
    assert max(map(len, batches)) == 7


def test_a_batch_of_any_users_holds_as_many_as_max_len_allows(cycle: Sequences) -> None:
    trainer = Trainer(config(batches="random", batch_users=80, batch_positions=47), cycle)
    assert {len(users) for users in trainer.batches.epoch()[:-1]} == {3}  # of 12 positions each


@pytest.mark.parametrize("variant", [{}, PAPER], ids=str)
def test_bfloat16_is_of_the_encoder_too_and_auto_is_not(cycle: Sequences, variant: dict[str, Any]) -> None:
    losses = {}
    for precision in ("auto", "float32", "bfloat16"):
        trainer = Trainer(config(variant, precision=precision), cycle)
        dtypes: set[torch.dtype] = set()
        product = next(module for module in trainer.model.encoder.modules() if isinstance(module, torch.nn.Linear))
        product.register_forward_hook(lambda *call, seen=dtypes: seen.add(call[-1].dtype))
        losses[precision] = trainer.step(trainer.batches.epoch()[0])["loss"]
        assert dtypes == {torch.bfloat16 if precision == "bfloat16" else torch.float32}
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_intents_recover_a_known_mixture(tmp_path: Path) -> None:
    """Users of 8 groups, each with its own 12 items and a tenth of stray ones; nobody tells the model the groups."""
    rng = np.random.default_rng(1)
    truth = rng.integers(8, size=600)
    lines = []
    for user, group in enumerate(truth):
        own = rng.permutation(12)[: rng.integers(5, 10)] + 12 * group + 1
        stray = rng.random(len(own)) < 0.1
        lines.append(f"{user} " + " ".join(map(str, np.where(stray, rng.integers(1, 97, len(own)), own))))
    path = tmp_path / "mixture.txt"
    path.write_text("\n".join(lines) + "\n")
    data = read_sequences(path)
    settings = config({"encoder": {"hidden": 32}, "intents": {"count": 8, "queue": 512}}, epochs=15, evaluate_every=15)
    trainer = Trainer(settings, data)
    for _ in each_epoch(trainer):
        pass
    outcome = evaluate(trainer.best_model(), data, "test")
    assert outcome.figures()["intents.effective"] >= 0.5 * 8
    assert normalized_mutual_information(torch.from_numpy(truth), torch.from_numpy(outcome.intents)) >= 0.8


def test_other_settings_do_not_go_on_with_a_training(cycle: Sequences, tmp_path: Path) -> None:
    fit(config(epochs=1), cycle, tmp_path / "model")
    with pytest.raises(ModelFileError, match="a training with other settings or data; delete it"):
        fit(config(epochs=2), cycle, tmp_path / "model")


def test_a_training_goes_on_where_it_was_begun_and_nowhere_else(cycle: Sequences, tmp_path: Path) -> None:
    """`auto` may find another device the next day, which draws other numbers."""
    fit(config(epochs=1, device="auto"), cycle, tmp_path)
    fit(config(epochs=1, device=DEVICES[-1]), cycle, tmp_path)  # the same, by its name
    path = tmp_path / "training.pt"
    torch.save({**torch.load(path, weights_only=True), "device": "elsewhere"}, path)
    with pytest.raises(
        ModelFileError, match=r"training\.pt: begun on device = 'elsewhere', this run is on '(cpu|cuda)'"
    ):
        fit(config(epochs=1, device="auto"), cycle, tmp_path)


def test_an_unfinished_training_of_an_earlier_build_is_refused(cycle: Sequences, tmp_path: Path) -> None:
    torch.save({"format": 1, "fingerprint": "of other settings"}, tmp_path / "training.pt")
    with pytest.raises(ModelFileError, match=r"training\.pt: format 1, this version reads 3; delete it to start again"):
        fit(config(), cycle, tmp_path)


def test_a_broken_training_file_is_refused(cycle: Sequences, tmp_path: Path) -> None:
    (tmp_path / "training.pt").write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match="not a training that can be continued"):
        fit(config(), cycle, tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        {"model": {}},
        {"generator": torch.zeros(3)},
        {"log": [{"x": 1}]},
        {"best": {"epoch": 1, "score": 1.0, "state": {}}},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_a_training_file_with_a_part_of_another_form_is_refused(
    cycle: Sequences, tmp_path: Path, damage: dict[str, Any]
) -> None:
    fit(config(epochs=1), cycle, tmp_path)
    path = tmp_path / "training.pt"
    torch.save({**torch.load(path, weights_only=True), **damage}, path)
    with pytest.raises(ModelFileError, match="not a training that can be continued; delete it to start again"):
        fit(config(epochs=1), cycle, tmp_path)


def test_it_learns_and_what_is_saved_is_what_was_measured(cycle: Sequences, tmp_path: Path) -> None:
    result = fit(config({"future": 0.0}, epochs=30, evaluate_every=5, patience=100), cycle, tmp_path / "model")
    assert result.report["network"]["test"]["ndcg@5"] > 0.9
    assert result.report["test"]["ndcg@5"] > 0.9
    assert result.report["users"] == 80 and result.report["peak_rss_mb"] > 0
    again = evaluate_folder(tmp_path / "model", cycle)
    assert {name: again[name] for name in result.report["test"]} == result.report["test"]


def test_an_ensemble_is_the_mean_of_its_members(cycle: Sequences, tmp_path: Path) -> None:
    result = fit(config(epochs=2, members=2, counts=None), cycle, tmp_path / "both")
    single = fit(config(epochs=2, seed=1, counts=None), cycle, tmp_path / "second")
    one, two = result.fitted.model, single.fitted.model  # the second member is the training with the next seed
    figures = evaluate(one, cycle, "test", others=[two]).figures()
    assert result.report["test"] == figures
    again = evaluate_folder(tmp_path / "both", cycle)
    assert {name: again[name] for name in figures} == figures


def test_the_held_out_items_are_never_trained_on(cycle: Sequences) -> None:
    trainer = Trainer(config(), cycle)
    for users in trainer.batches.epoch():
        batch = trainer.batches.batch(users)
        for row, user in enumerate(sorted(users.tolist(), key=lambda user: -cycle.lengths[user])):
            sequence = cycle.items[cycle.offsets[user] : cycle.offsets[user + 1]]
            inputs = [int(x) for x in batch.inputs[row] if x > 0]
            targets = [int(x) for x in batch.targets[row] if x > 0]
            assert inputs == sequence[:-3].tolist()
            assert targets == sequence[1:-2].tolist()


def test_negatives_are_never_the_users_own(cycle: Sequences) -> None:
    trainer = Trainer(config(PAPER), cycle)
    for users in trainer.batches.epoch():
        batch = trainer.batches.batch(users)
        assert batch.negatives is not None
        own = torch.cat([batch.inputs, batch.targets], dim=1)
        wanted = batch.targets > 0
        assert not ((batch.negatives[:, :, None] == own[:, None, :]).any(-1) & wanted).any()
        assert torch.equal(batch.negatives > 0, wanted)
        assert int(batch.negatives.max()) <= cycle.item_count


@pytest.mark.parametrize(("compat", "avoided"), [("none", False), ("authors", True)])
def test_only_the_authors_negatives_avoid_what_is_held_out(cycle: Sequences, compat: str, avoided: bool) -> None:
    trainer, drawn = Trainer(config({**PAPER, "compat": compat}), cycle), 0
    for users in trainer.batches.epoch():
        batch = trainer.batches.batch(users)
        assert batch.negatives is not None
        index = np.array(sorted(users.tolist(), key=lambda user: -cycle.lengths[user]))
        for split in ("validation", "test"):
            answers = torch.from_numpy(cycle.answers(split, index))
            drawn += int((batch.negatives == answers[:, None]).sum())
    assert (drawn < 5) == avoided  # half a ring is taken: of eleven draws all are, once in two thousand times


@pytest.mark.parametrize(("order", "share"), [("length", 0.85), ("random", 0.75)])
def test_little_of_what_attention_meets_is_padding(cycle: Sequences, order: str, share: float) -> None:
    trainer = Trainer(config(batches=order), cycle)
    batches = [trainer.batches.batch(users) for users in trainer.batches.epoch()]
    held = sum(int((batch.inputs > 0).sum()) for batch in batches)
    encoded = [part for batch in batches for part in batch.split(batch.inputs)]
    assert held == sum(int((part > 0).sum()) for part in encoded)  # nothing of a history is cut off
    assert held / sum(part.numel() for part in encoded) > share


def test_a_loss_that_is_no_number_stops_with_a_reason(cycle: Sequences) -> None:
    trainer = Trainer(config(), cycle)
    with torch.no_grad():
        trainer.model.items[1:] = float("nan")
    with pytest.raises(LearnerError, match="epoch 1: the loss is nan; lower learning_rate"):
        trainer.epoch()


def test_epochs_that_were_not_validated_do_not_end_a_training(cycle: Sequences) -> None:
    trainer = Trainer(config(epochs=20, patience=3, evaluate_every=2), cycle)
    trainer.place_centers()
    while not trainer.finished:
        trainer.validate(trainer.epoch())
        if trainer.best is not None:
            trainer.best["score"] = 2.0  # none is better from here on
    assert len(trainer.log) == 6  # the 4th is 2 epochs later, the 6th 4
    assert trainer.log[-1].validation is not None


def test_users_with_nothing_to_predict_are_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_text("a 1 2 3\nb 1 2 3 4\nc 4 3 2 1 2\n")
    trainer = Trainer(config(), read_sequences(path))
    trainer.place_centers()
    assert sorted(int(user) for users in trainer.batches.epoch() for user in users) == [1, 2]
    trainer.validate(trainer.epoch())


def test_ranks_are_the_loop() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 2.0], [0.0, 5.0, 1.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    seen = (torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]))
    ranks = ranks_of(scores, torch.tensor([[2], [2], [2]]), seen)
    assert ranks.tolist() == [1, 1, UNRANKED]  # a tie counts against; an excluded answer has no rank


def test_what_is_no_number_counts_against_the_answer() -> None:
    scores = torch.tensor([[3.0, float("nan"), 4.0, 1.0]])
    nobody = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    assert ranks_of(scores, torch.tensor([[0]]), nobody).tolist() == [2]


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(LearnerError, match="not numbers"):
        ranks_of(torch.full((1, 3), float("nan")), torch.tensor([[0]]), (torch.tensor([0]), torch.tensor([1])))


def test_evaluation_changes_nothing(cycle: Sequences) -> None:
    trainer = Trainer(config(), cycle)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    evaluate(trainer.model, cycle, "test")
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())
    assert trainer.model.training


def slow_counts(sequences: list[list[int]], N: int, c: CountsConfig) -> np.ndarray[Any, Any]:
    table = np.zeros((N + 1, N + 1))
    seen = np.zeros(N + 1)
    for items in sequences:
        for i, x in enumerate(items):
            seen[x] += 1
            for j in range(i + 1, min(i + c.window, len(items) - 1) + 1):
                table[x, items[j]] += c.fade ** (j - i - 1)
                table[items[j], x] += c.backward * c.fade ** (j - i - 1)
    seen = seen.clip(min=1)
    return table / (seen[:, None] * seen[None, :]) ** c.damping


@pytest.mark.parametrize("window", [2, 50])
def test_counts_are_the_loop(window: int) -> None:
    sequences = [[1, 2, 3, 2], [3, 1], [2, 2, 4, 5, 1], [6]]
    c = CountsConfig(window=window)
    offsets = np.cumsum([0, *map(len, sequences)])
    counts = ItemCounts(c, np.concatenate(sequences), offsets, item_count=7)
    table = slow_counts(sequences, 7, c)
    histories = np.array([[0, 0, 1], [2, 7, 3], [0, 0, 7]])
    for scores, history in zip(counts.scores(histories), histories, strict=True):
        expected = sum(table[x] * (rank + 1.0) ** -c.recency for rank, x in enumerate(history[::-1]) if x > 0)
        total = expected.sum()
        np.testing.assert_allclose(scores, expected / total if total > 0 else 0 * scores, rtol=1e-5, atol=1e-7)


def test_the_mixture_is_chosen_among_the_grid_on_validation(cycle: Sequences) -> None:
    trainer = Trainer(config(), cycle)
    counts = count_items(config().counts, cycle)
    assert counts is not None
    grid = ((0.0, 0.01), (5.0, 0.01), (5.0, 0.1))
    mixture, found = choose_mixture(trainer.model, cycle, counts, grid)
    assert set(found) == set(grid)
    assert mixture[1:] == (0.0, 0.01)  # an untrained network adds nothing to exact counts
    for point in grid:
        figures = evaluate(trainer.model, cycle, "validation", Mixture(counts, *point)).figures()
        assert figures["ndcg@20"] == pytest.approx(found[point])


def test_damaged_counts_are_refused(cycle: Sequences, tmp_path: Path) -> None:
    fit(config(epochs=1), cycle, tmp_path)
    (tmp_path / "counts.npz").write_bytes(b"nonsense")
    with pytest.raises(ModelFileError, match=r"counts.npz: not the counts"):
        evaluate_folder(tmp_path, cycle)


def test_presets_hold_the_papers_settings() -> None:
    found = {
        name: (c.model.intents.count, c.model.encoder.layers, 100 * c.model.intents.weight, c.model.fusion)
        for name, c in PRESETS.items()
    }
    assert found == {
        "beauty": (256, 1, 10.0, "shift"),
        "sports": (512, 2, 1.0, "concat"),
        "toys": (512, 3, 1.0, "concat"),
        "yelp": (256, 2, 0.1, "concat"),
    }
    for c in PRESETS.values():
        assert (c.learning_rate, c.batch_users, c.epochs, c.patience, c.counts) == (1e-3, 256, 300, 40, None)


@pytest.mark.parametrize("settings", [MODERN, *PRESETS.values()])
def test_settings_survive_json(settings: FitConfig) -> None:
    assert msgspec.json.decode(msgspec.json.encode(settings), type=FitConfig) == settings


def test_every_setting_says_what_it_means() -> None:
    for kind in (FitConfig, ModelConfig, CountsConfig):
        properties = msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"]
        for name, field in properties.items():
            assert "description" in field or "$ref" in field or "anyOf" in field, f"{kind.__name__}.{name}"
