"""One file of sequence pairs: which arrays it must and may hold, and its rows as Pairs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tinyflux_pl.core.errors import DataError
from tinyflux_pl.core.nearest_name import did_you_mean
from tinyflux_pl.core.sequence_pairs import Pairs, PairShape
from tinyflux_pl.data.sequences.array_file import ArrayFile

ARRAYS = (
    "target",
    "condition",
    "target_ids",
    "condition_ids",
    "target_mask",
    "condition_mask",
    "vector",
    "label",
)
# columns of default ids, and which of them counts a side's tokens
AXES, AXIS = 3, {"condition": 0, "target": 1}


class PairFile:
    """Arrays by name: `condition` (M, L, C), `target` (M, N, D), and what may stand beside them.

    `*_ids` (M, tokens, A) or, one set for all, (tokens, A); `*_mask` (M, tokens), true on real
    tokens; `vector` (M, P); `label` (M,) whole numbers. Without `target` (needs_target=False) the
    target's length must be said by `target_ids` or by the caller. Raises DataError naming what is
    missing, unknown or of the wrong shape.
    """

    def __init__(self, path: str | Path, needs_target: bool = True) -> None:
        self.file = ArrayFile(path)
        shapes = self.file.shapes
        needed = ("condition", "target") if needs_target else ("condition",)
        if missing := [name for name in needed if name not in shapes]:
            raise self._fault(
                f"no {' and no '.join(missing)}; it holds {_listed(shapes)}", "name the arrays so"
            )
        for name in shapes:
            if name not in ARRAYS:
                cure = did_you_mean(name, ARRAYS, f"leave it out; arrays are {', '.join(ARRAYS)}")
                raise self._fault(f"unknown array {name!r}", cure)
        for name in ("condition", "target"):
            if name in shapes and len(shapes[name]) != 3:
                raise self._fault(
                    f"{name} is {shapes[name]}, not (pairs, tokens, channels)",
                    "store three dimensions",
                )
            if name in shapes and 0 in shapes[name]:
                raise self._fault(
                    f"{name} is {shapes[name]}: empty", "store at least one pair, token and channel"
                )
        self.count, self.condition_tokens, self.condition_width = shapes["condition"]
        self.width = shapes["target"][2] if "target" in shapes else None
        self.tokens = self._target_tokens()
        for name in ARRAYS:
            if name in shapes:
                self._check(name, shapes[name])
        axes = {shapes[name][-1] for name in ("target_ids", "condition_ids") if name in shapes}
        if len(axes) > 1:
            raise self._fault(
                f"target_ids have {shapes['target_ids'][-1]} columns, condition_ids "
                f"{shapes['condition_ids'][-1]}",
                "place both in one space: give both as many columns",
            )
        self.axes = axes.pop() if axes else AXES
        self.vector = shapes["vector"][1] if "vector" in shapes else 1

    def __len__(self) -> int:
        return self.count

    def has(self, name: str) -> bool:
        """True if the file holds that array."""
        return name in self.file.shapes

    def pairs(
        self,
        rows: slice,
        shape: PairShape,
        default_ids: dict[str, list[list[float]] | None] | None = None,
    ) -> Pairs:
        """The pairs of these rows, zero-padded to `shape`, at least the file's own lengths.

        `default_ids` are the ids (tokens, A) of `target` and `condition` where the file has none:
        by default the index of a token; None for ids that only the file can tell.
        """
        count = len(range(*rows.indices(len(self))))
        target_mask = self._mask("target_mask", rows, count, self.tokens or shape.tokens)
        condition_mask = self._mask("condition_mask", rows, count, self.condition_tokens)
        target = self._values("target", rows, target_mask) if self.has("target") else None
        return Pairs(
            condition=_padded(
                self._values("condition", rows, condition_mask), shape.condition_tokens
            ),
            condition_ids=_padded(
                self._ids("condition", rows, condition_mask, default_ids), shape.condition_tokens
            ),
            condition_mask=_padded(condition_mask[..., None], shape.condition_tokens)[..., 0],
            vector=self._values("vector", rows)
            if self.has("vector")
            else torch.zeros(count, shape.vector),
            target_ids=_padded(self._ids("target", rows, target_mask, default_ids), shape.tokens),
            target_mask=_padded(target_mask[..., None], shape.tokens)[..., 0],
            labels=self._labels(rows) if self.has("label") else [""] * count,
            target=None if target is None else _padded(target, shape.tokens),
        )

    def _target_tokens(self) -> int | None:
        shapes = self.file.shapes
        if "target" in shapes:
            return shapes["target"][1]
        if "target_ids" in shapes:
            return shapes["target_ids"][-2] if len(shapes["target_ids"]) > 1 else None
        return (
            shapes["target_mask"][1]
            if "target_mask" in shapes and len(shapes["target_mask"]) == 2
            else None
        )

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        side, _, part = name.partition("_")
        count, tokens = self.count, self.tokens if side == "target" else self.condition_tokens
        expected: list[tuple[int | str | None, ...]] = {
            "vector": [(count, "channels")],
            "label": [(count,)],
            "mask": [(count, tokens)],
            "ids": [(count, tokens, "columns"), (tokens, "columns")],
        }.get(part or name, [(count, tokens, "channels")])
        if 0 in shape or not any(_fits(shape, each) for each in expected):
            allowed = " or ".join(str(each).replace("'", "") for each in expected)
            raise self._fault(
                f"{name} is {shape}, beside a condition of {count} pairs it must be {allowed}",
                f"store {name} in that shape",
            )

    def _values(self, name: str, rows: slice, mask: Tensor | None = None) -> Tensor:
        """These rows in fp32; padding is zero, whatever the file holds there."""
        values = self.file.rows(name, rows).float()
        if mask is not None:
            values = values.masked_fill(~mask[..., None], 0)
        bad = ~torch.isfinite(values).flatten(1).all(1)
        if bool(bad.any()):
            names = (
                f"{'token' if rows.start is None else 'pair'} "
                f"{(rows.start or 0) + int(bad.int().argmax())}"
            )
            cure = "store finite numbers (what a mask calls padding is not read), or leave it out"
            raise self._fault(
                f"{name} of {names}, counted from 0, holds numbers that are not finite in fp32",
                cure,
            )
        return values

    def _labels(self, rows: slice) -> list[str]:
        values = self.file.rows("label", rows)
        if values.is_floating_point() and not bool(
            (values.isfinite() & (values == values.floor())).all()
        ):
            raise self._fault(
                "label holds more than whole numbers", "store whole numbers, or leave it out"
            )
        return [str(int(n)) for n in values]

    def _mask(self, name: str, rows: slice, count: int, tokens: int) -> Tensor:
        if not self.has(name):
            return torch.ones(count, tokens, dtype=torch.bool)
        values = self.file.rows(name, rows)
        if not bool(((values == 0) | (values == 1)).all()):
            raise self._fault(
                f"{name} holds more than 0 and 1", "store truth values, true on real tokens"
            )
        mask = values.bool()
        if not bool(mask.any(1).all()):
            raise self._fault(f"{name} leaves a pair without any token", "leave such pairs out")
        return mask

    def _ids(
        self,
        side: str,
        rows: slice,
        mask: Tensor,
        default_ids: dict[str, list[list[float]] | None] | None,
    ) -> Tensor:
        (count, tokens), name = mask.shape, f"{side}_ids"
        if self.has(name) and len(self.file.shapes[name]) == 3:
            return self._values(name, rows, mask)
        if self.has(name):
            ids = self._values(name, slice(None))
        elif default_ids is None:
            ids = torch.zeros(tokens, self.axes)
            ids[:, AXIS[side] if AXIS[side] < self.axes else 0] = torch.arange(
                tokens, dtype=torch.float32
            )
        else:
            positions = default_ids[side]
            if positions is None or len(positions) < tokens:
                longest = (
                    "differ from pair to pair"
                    if positions is None
                    else f"are known for {len(positions)} tokens"
                )
                raise self._fault(
                    f"no {name}, and in training they {longest}",
                    f"give {name} (pairs, tokens, columns)",
                )
            ids = torch.tensor(positions[:tokens], dtype=torch.float32)
        return ids.expand(count, -1, -1).masked_fill(~mask[..., None], 0)

    def _fault(self, what: str, cure: str) -> DataError:
        return DataError(what, where=str(self.file.path), cure=cure)


def _fits(shape: tuple[int, ...], expected: tuple[int | str | None, ...]) -> bool:
    """True if a shape is as expected, where a name stands for any number."""
    return len(shape) == len(expected) and all(
        isinstance(w, str) or n == w for n, w in zip(shape, expected, strict=True)
    )


def _padded(values: Tensor, tokens: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, 0, 0, tokens - values.shape[1]))


def _listed(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in sorted(shapes.items())) or "nothing"
