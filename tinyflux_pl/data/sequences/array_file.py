"""Named arrays of a .npz or .safetensors file, checked by their headers before reading."""

from __future__ import annotations

import math
import zipfile
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tinyflux_pl.core.errors import DataError

SUFFIXES = (".npz", ".safetensors")
# of all arrays of one .npz, unpacked: it is read whole, a .safetensors file is mapped
MAX_BYTES = 2**33
_KINDS = "fiub"
# raised for damaged or unusual archives: RuntimeError for encrypted ones and, as its subclass
# NotImplementedError, for unknown methods
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    EOFError,
    OSError,
    KeyError,
    RuntimeError,
)


class ArrayFile:
    """`shapes` maps each array's name to its shape; `rows` reads part of one.

    Nothing is unpickled. Raises DataError for a file of another format, a truncated one, one that
    unpacks to more than `max_bytes`, and for arrays of anything but numbers and booleans.
    """

    def __init__(self, path: str | Path, max_bytes: int = MAX_BYTES) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(
                "no such file",
                where=str(path),
                cure=f"name a file that ends in {' or '.join(SUFFIXES)}",
            )
        self._arrays: dict[str, np.ndarray] = {}
        if self.path.suffix == ".npz":
            self.shapes = self._npz_shapes(max_bytes)
        elif self.path.suffix == ".safetensors":
            self.shapes = {
                name: tuple(self._mapped.get_slice(name).get_shape())
                for name in self._mapped.keys()  # noqa: SIM118
            }
        else:
            raise self._fault(
                f"arrays come as {' or '.join(SUFFIXES)}", "save them as one of these"
            )

    def rows(self, name: str, rows: slice = slice(None)) -> Tensor:
        """Rows of an array in the type of the file."""
        if self.path.suffix == ".safetensors":
            part = self._mapped.get_slice(name)[rows]
            if part.is_complex():
                raise self._fault(f"{name} holds complex numbers", "store real numbers")
            return part
        if name not in self._arrays:
            self._arrays[name] = self._npz_array(name)
        return torch.from_numpy(self._arrays[name][rows])

    @cached_property
    def _mapped(self) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(self.path, "pt")
        except (SafetensorError, OSError) as error:
            raise self._fault(
                f"not a complete safetensors file: {error}", "write it again"
            ) from error

    def _npz_shapes(self, max_bytes: int) -> dict[str, tuple[int, ...]]:
        shapes, total = {}, 0
        try:
            with zipfile.ZipFile(self.path) as archive:
                for member in archive.infolist():
                    name = member.filename.removesuffix(".npy")
                    with archive.open(member) as handle:
                        shape, dtype = _header(handle)
                        begins = handle.tell()
                    if dtype.kind not in _KINDS:
                        cure = (
                            "store real numbers; pad sequences to one length and give a mask, or "
                            "write several files"
                        )
                        raise self._fault(f"{name} holds {dtype}, not numbers", cure)
                    size = math.prod(shape) * dtype.itemsize
                    if member.file_size != begins + size:
                        raise self._fault(
                            f"{name} is {member.file_size} bytes, its header says {begins + size}",
                            "write it again",
                        )
                    shapes[name], total = shape, total + size
        except _UNREADABLE as error:
            raise self._fault(
                f"not a complete .npz file: {error}", "write it again with numpy.savez"
            ) from error
        if total > max_bytes:
            what = (
                f"{total / 2**30:.1f} GiB unpacked, at most {max_bytes / 2**30:.1f} GiB are read "
                "into memory"
            )
            raise self._fault(
                what, "split it into several files, or write .safetensors, which is mapped"
            )
        return shapes

    def _npz_array(self, name: str) -> np.ndarray:
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as handle:
                array = np.lib.format.read_array(handle, allow_pickle=False)
        except _UNREADABLE as error:
            raise self._fault(
                f"{name} cannot be read: {error}", "write it again with numpy.savez"
            ) from error
        wide = array.dtype.kind == "f" and array.dtype.itemsize > 8  # which torch has no type for
        native = np.dtype(np.float64) if wide else array.dtype.newbyteorder("=")
        return np.ascontiguousarray(array.astype(native, copy=False))

    def _fault(self, what: str, cure: str) -> DataError:
        return DataError(what, where=str(self.path), cure=cure)


def _header(handle: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of a .npy member; ValueError if it is none."""
    version = np.lib.format.read_magic(handle)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"npy version {version}")
    shape, _, dtype = read[version](handle)
    return shape, dtype
