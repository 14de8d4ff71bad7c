"""Three ways to make another view of a sequence: crop, mask, reorder. A whole batch at once, from one generator."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Compat = Literal["none", "authors"]

CROP, MASK, REORDER = 0.2, 0.7, 0.2  # shares of a sequence, the paper's settings for all four data sets


def _starts(length: Tensor, size: Tensor, generator: torch.Generator, compat: Compat) -> Tensor:
    """Where a window of `size` begins in each sequence, (B,) uniform.

    The authors draw from 0 to length - size - 1 and so never take the newest window; a single item may be any.
    """
    free = length - size + 1 if compat == "none" else length - size  # (B,) number of places
    free = torch.where(size < 1, length, free)
    draw = torch.rand(len(length), generator=generator, dtype=torch.float64, device=length.device)
    return (draw * free.clamp(min=1)).long()


def crop(rows: Tensor, generator: torch.Generator, share: float = CROP, compat: Compat = "none") -> Tensor:
    """Keep a window of int(share * length) items, at least one, right-aligned again.

    rows (B, T) right-aligned, 0 = empty; the same shape comes back.
    """
    T = rows.shape[1]
    length = (rows > 0).sum(1)  # (B,)
    size = (share * length).long()
    start = _starts(length, size, generator, compat)
    size = size.clamp(min=1).minimum(length)
    first = T - length + start  # (B,) place of the window's first item
    place = torch.arange(T, device=rows.device) - (T - size)[:, None]  # (B, T) in the window, negative left of it
    taken = rows.gather(1, (first[:, None] + place).clamp(0, T - 1))
    return taken * (place >= 0)


def mask(rows: Tensor, generator: torch.Generator, mask_row: int, share: float = MASK) -> Tensor:
    """Write `mask_row` over int(share * length) items of each sequence (B, T). The authors write 0, the padding."""
    valid = rows > 0
    count = (share * valid.sum(1)).long()  # (B,)
    key = torch.rand(rows.shape, generator=generator, device=rows.device).masked_fill(~valid, 2.0)  # (B, T)
    place = torch.arange(rows.shape[1], device=rows.device).repeat(len(rows), 1)
    rank = torch.empty_like(place).scatter_(1, key.argsort(dim=1), place)  # (B, T) valid ones first, in random order
    return torch.where(valid & (rank < count[:, None]), mask_row, rows)


def reorder(rows: Tensor, generator: torch.Generator, share: float = REORDER, compat: Compat = "none") -> Tensor:
    """Shuffle a window of int(share * length) items of each sequence (B, T)."""
    T = rows.shape[1]
    length = (rows > 0).sum(1)  # (B,)
    size = (share * length).long()
    first = (T - length + _starts(length, size, generator, compat))[:, None]  # (B, 1)
    place = torch.arange(T, device=rows.device).expand(rows.shape)  # (B, T)
    inside = (place >= first) & (place < first + size[:, None])
    draw = torch.rand(rows.shape, generator=generator, device=rows.device)
    key = torch.where(inside, first + draw * size[:, None], place.to(draw.dtype))  # a window's keys stay in its range
    return rows.gather(1, key.argsort(dim=1, stable=True))


def random_view(rows: Tensor, generator: torch.Generator, mask_row: int, compat: Compat = "none") -> Tensor:
    """One of the three for each sequence of (B, T), with equal chances."""
    which = torch.randint(3, (len(rows), 1), generator=generator, device=rows.device)  # (B, 1)
    cropped = crop(rows, generator, compat=compat)
    masked = mask(rows, generator, 0 if compat == "authors" else mask_row)
    shuffled = reorder(rows, generator, compat=compat)
    return torch.where(which == 0, cropped, torch.where(which == 1, masked, shuffled))
