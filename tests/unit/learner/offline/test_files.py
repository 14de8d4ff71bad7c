"""The authors' weights, and every way in which a weights file can be wrong."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch import Tensor

from learner.errors import ModelFileError
from learner.model.config import ModelConfig
from learner.model.elcrec import ELCRec
from learner.offline.evaluation import evaluate
from learner.offline.files import Fitted, load_authors, load_fitted, save_fitted
from learner.offline.sequences import read_sequences

PUBLISHED = {"hr@5": 0.0529, "ndcg@5": 0.0355, "hr@10": 0.0762, "ndcg@10": 0.0429, "hr@20": 0.1079, "ndcg@20": 0.0509}


def authors_state(items: int = 9, d: int = 8, layers: int = 1, max_len: int = 5, K: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    state = {
        "item_embeddings.weight": draw(items + 2, d),
        "position_embeddings.weight": draw(max_len, d),
        "LayerNorm.weight": draw(d),
        "LayerNorm.bias": draw(d),
        "cluster_centers": draw(K, d),
    }
    for layer in range(layers):
        prefix = f"item_encoder.layer.{layer}."
        for name in ("query", "key", "value", "dense", "LayerNorm"):
            state[f"{prefix}attention.{name}.weight"] = draw(d) if name == "LayerNorm" else draw(d, d)
            state[f"{prefix}attention.{name}.bias"] = draw(d)
        for name, shape in (("dense_1", (4 * d, d)), ("dense_2", (d, 4 * d)), ("LayerNorm", (d,))):
            state[f"{prefix}intermediate.{name}.weight"] = draw(*shape)
            state[f"{prefix}intermediate.{name}.bias"] = draw(shape[0])
    return state


def saved(tmp_path: Path, state: Any) -> Path:
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    return path


def naive(state: dict[str, Tensor], rows: list[int], heads: int = 2) -> Tensor:
    """The authors' forward pass of one user without padding, last position, in plain tensor algebra."""

    def norm(x: Tensor, prefix: str) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-12).sqrt()
        return x * state[prefix + ".weight"] + state[prefix + ".bias"]

    def linear(x: Tensor, prefix: str) -> Tensor:
        return x @ state[prefix + ".weight"].T + state[prefix + ".bias"]

    T = len(rows)
    x = norm(state["item_embeddings.weight"][rows] + state["position_embeddings.weight"][-T:], "LayerNorm")
    for layer in range(2):
        at = f"item_encoder.layer.{layer}.attention"
        parts = [linear(x, f"{at}.{name}").chunk(heads, dim=-1) for name in ("query", "key", "value")]
        mixed = []
        for q, k, v in zip(*parts, strict=True):
            scores = (q @ k.T / q.shape[-1] ** 0.5).masked_fill(torch.ones(T, T).triu(1).bool(), float("-inf"))
            mixed.append(scores.softmax(-1) @ v)
        x = norm(x + linear(torch.cat(mixed, -1), f"{at}.dense"), f"{at}.LayerNorm")
        inner = linear(x, f"item_encoder.layer.{layer}.intermediate.dense_1")
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        inner = linear(inner, f"item_encoder.layer.{layer}.intermediate.dense_2")
        x = norm(x + inner, f"item_encoder.layer.{layer}.intermediate.LayerNorm")
    return x[-1]


@torch.no_grad()
def test_the_authors_model_is_computed_as_they_do(tmp_path: Path) -> None:
    state = authors_state(layers=2)
    model = load_authors(saved(tmp_path, state), items=9)
    for rows in ([3], [1, 2, 9], [5, 5, 1, 2, 7]):
        padded = torch.tensor([[0] * (5 - len(rows)) + rows])
        torch.testing.assert_close(model.user(padded)[0], naive(state, rows), rtol=1e-4, atol=1e-5)


def test_the_published_beauty_weights_give_the_published_figures() -> None:
    folder = os.environ.get("ELCREC_DATA")
    if folder is None:
        pytest.skip("ELCREC_DATA names no folder with Beauty.txt and ELCRec-Beauty-1.pt")
    sequences = read_sequences(Path(folder) / "Beauty.txt")
    model = load_authors(Path(folder) / "ELCRec-Beauty-1.pt", items=sequences.item_count)
    figures = evaluate(model, sequences, "test").figures()
    assert {name: round(figures[name], 4) for name in PUBLISHED} == PUBLISHED
    assert (figures["users"], figures["intents.active"]) == (22363, 7)  # 99.8% of the users share one intent


def without(key: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: value for name, value in state.items() if name != key}


def changed(key: str, value: Any) -> Callable[[dict[str, Tensor]], dict[str, Any]]:
    return lambda state: {**state, key: value}


DENSE = "item_encoder.layer.0.attention.dense.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without("cluster_centers"), "key 'cluster_centers' is missing"),
        (
            without("item_encoder.layer.0.attention.key.bias"),
            "key 'item_encoder.layer.0.attention.key.bias' is missing",
        ),
        (without(DENSE), f"{DENSE!r} is missing"),
        (changed("projection.weight", torch.zeros(2)), "key 'projection.weight' is not one of the authors'"),
        (changed(DENSE, torch.zeros(3, 3)), f"{DENSE!r} has shape 3x3, expected 8x8"),
        (changed(DENSE, torch.full((8, 8), float("nan"))), f"{DENSE!r} has a number that is not finite"),
        (changed(DENSE, torch.zeros(8, 8, dtype=torch.int64)), f"{DENSE!r} holds torch.int64, expected torch.float32"),
        (changed(DENSE, torch.zeros(8, 8).to_sparse()), f"{DENSE!r} is torch.sparse_coo"),
        (changed(DENSE, torch.zeros(8, 8, dtype=torch.complex64)), "expected a dense tensor of numbers"),
        (changed("cluster_centers", torch.zeros(4, 3)), "'cluster_centers' has shape 4x3, expected 4x8"),
        (changed("cluster_centers", torch.zeros(0, 8)), "'cluster_centers' is empty, its shape is 0x8"),
        (changed("position_embeddings.weight", torch.zeros(0, 8)), "'position_embeddings.weight' is empty"),
        (changed("LayerNorm.bias", torch.zeros(3)), "'LayerNorm.bias' has shape 3, expected 8"),
        (changed("item_embeddings.weight", torch.zeros(50, 8)), "has 50 rows, expected 11"),
        (changed("item_embeddings.weight", torch.zeros(5)), "has shape 5, expected two dimensions"),
        (changed("epoch", 7), "entry 'epoch' is a int"),
        (lambda state: list(state), "holds a list"),
        (lambda state: {}, "holds a dict"),
    ],
)
def test_wrong_weights_are_refused_in_one_line(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], said: str
) -> None:
    with pytest.raises(ModelFileError) as error:
        load_authors(saved(tmp_path, change(authors_state())), items=9)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "weights.pt" in str(error.value)


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, write: Callable[[Any, Path], None]) -> None:
    path, mark = tmp_path / "weights.pt", tmp_path / "ran"
    write({**authors_state(), "x": Bomb(mark)}, path)
    with pytest.raises(ModelFileError, match="refused|not a weights file") as error:
        load_authors(path)
    assert "\n" not in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04broken", b"\x80\x04."])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as error:
        load_authors(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="absent.pt: cannot be read"):
        load_authors(tmp_path / "absent.pt")


def small() -> Fitted:
    config = ModelConfig(max_len=5)
    model = ELCRec(config, 6, torch.Generator().manual_seed(0)).eval()
    return Fitted(model, tuple("abcdef"), (0.3, 0.01), {"note": 1})


def test_a_fitted_model_comes_back_as_it_was(tmp_path: Path) -> None:
    fitted = small()
    save_fitted(tmp_path / "model", fitted)
    again = load_fitted(tmp_path / "model")
    assert (again.items, again.mix, again.settings) == (fitted.items, fitted.mix, fitted.settings)
    assert again.model.config == fitted.model.config
    for name, value in fitted.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)


def test_a_damaged_or_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no fitted model"):
        load_fitted(tmp_path)
    save_fitted(tmp_path, small())
    weights = tmp_path / "weights.pt"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"weights.pt: damaged"):
        load_fitted(tmp_path)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_fitted(tmp_path, small())

    def full(content: Any, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(ModelFileError, match=r"weights.pt: cannot be written: No space left on device"):
        save_fitted(tmp_path, small())
    assert not list(tmp_path.glob("*.part"))
    load_fitted(tmp_path)  # what was there is whole


def test_another_format_is_refused(tmp_path: Path) -> None:
    save_fitted(tmp_path, small())
    note = tmp_path / "model.json"
    note.write_text(note.read_text().replace('"format": 1', '"format": 9'))
    with pytest.raises(ModelFileError, match="format 9, this version reads 1"):
        load_fitted(tmp_path)
