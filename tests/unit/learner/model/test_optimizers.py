import pytest
import torch

from learner.model.optimizers import BETAS, EPSILON, DenseAdam, RowAdam


def test_dense_adam_is_torchs_adam() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(3, 2, generator=generator), torch.randn(4, generator=generator)]
    mine = [value.clone() for value in start]
    theirs = [value.clone().requires_grad_() for value in start]
    ours, reference = DenseAdam(mine), torch.optim.Adam(theirs, lr=0.1, betas=BETAS, eps=EPSILON)
    for _ in range(5):
        gradients = [torch.randn(value.shape, generator=generator) for value in start]
        ours.step(ours.gradient(gradients), 0.1)
        for value, gradient in zip(theirs, gradients, strict=True):
            value.grad = gradient
        reference.step()
    for value, expected in zip(mine, theirs, strict=True):
        assert torch.allclose(value, expected.detach(), atol=1e-6)


def test_dense_adam_reads_a_strided_gradient_rightly() -> None:
    columns = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    one, other = torch.zeros(5), torch.zeros(5)
    DenseAdam([one]).step(columns[:, 1], 0.1)
    DenseAdam([other]).step(columns[:, 1].clone(), 0.1)
    assert torch.equal(one, other)


def test_row_adam_agrees_with_a_loop_over_rows() -> None:
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(6, 3, generator=generator)
    expected = table.clone().double()
    adam = RowAdam(6, 3)
    moments: list[tuple[torch.Tensor, float, int]] = [(torch.zeros(3, dtype=torch.float64), 0.0, 0)] * 6
    for touched in ([1, 4], [4], [0, 1, 5], [4, 5]):
        gradient = torch.randn(len(touched), 3, generator=generator)
        adam.step(table, torch.tensor(touched), gradient, 0.1)
        for row, own in zip(touched, gradient.double(), strict=True):
            first, second, steps = moments[row]
            first = BETAS[0] * first + (1 - BETAS[0]) * own
            second = BETAS[1] * second + (1 - BETAS[1]) * float(own.square().mean())
            moments[row] = (first, second, steps + 1)
            scale = (second / (1 - BETAS[1] ** (steps + 1))) ** 0.5 + EPSILON
            expected[row] -= 0.1 * first / (1 - BETAS[0] ** (steps + 1)) / scale
    assert torch.allclose(table.double(), expected, atol=1e-5)


def test_a_slice_of_rows_is_the_same_as_their_numbers() -> None:
    gradient = torch.arange(6.0).reshape(3, 2)
    tables = [torch.ones(4, 2), torch.ones(4, 2)]
    RowAdam(4, 2).step(tables[0], slice(0, 3), gradient, 0.1)
    RowAdam(4, 2).step(tables[1], torch.arange(3), gradient, 0.1)
    assert torch.equal(*tables)
    assert tables[0][3].tolist() == [1, 1]


@pytest.mark.parametrize("rows", [[2], [0, 3]])
def test_cleared_rows_start_again(rows: list[int]) -> None:
    table, adam = torch.zeros(4, 2), RowAdam(2, 2)
    adam.grow(4)
    adam.step(table, torch.arange(4), torch.ones(4, 2), 0.1)
    adam.clear(torch.tensor(rows))
    fresh, again = torch.zeros(4, 2), table.clone()
    adam.step(again, torch.tensor(rows), torch.full((len(rows), 2), 3.0), 0.1)
    RowAdam(4, 2).step(fresh, torch.tensor(rows), torch.full((len(rows), 2), 3.0), 0.1)
    assert torch.allclose((again - table)[rows], fresh[rows])
