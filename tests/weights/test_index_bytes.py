"""The bytes that an index says its shards hold are compared with those of their headers."""

import json
import warnings

import pytest
import torch

from tests.weights.test_find_files import STEM, shards
from tinyflux_pl.weights.find_files import weights_in

PARTS = {"a": torch.ones(2, 2), "b": torch.ones(3)}, {"c": torch.ones(5).to(torch.bfloat16)}
BYTES = 4 * (4 + 3) + 2 * 5


def indexed(folder, metadata):
    """Shards whose index has this metadata; None: it has none."""
    shards(folder, *PARTS)
    index = folder / f"{STEM}.safetensors.index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content if metadata is None else {"metadata": metadata, **content}))
    return weights_in(folder, (STEM,))


@pytest.mark.parametrize("total", [BYTES // 2, 2 * BYTES, BYTES - 1])
def test_another_number_of_bytes_is_named(total, tmp_path):
    weights = indexed(tmp_path, {"total_size": total})
    with pytest.warns(UserWarning, match=rf"the index says {total:,} bytes .* hold {BYTES:,}"):
        assert weights.outlines().keys() == {"a", "b", "c"}
    with pytest.warns(UserWarning, match=rf"the index says {total:,} bytes .* hold {BYTES:,}"):
        assert weights.tensors().keys() == {"a", "b", "c"}


@pytest.mark.parametrize(
    "metadata",
    [{"total_size": BYTES}, {"total_size": float(BYTES)}, {}, None, [], {"total_size": "many"}],
)
def test_an_equal_number_passes_and_so_does_none(metadata, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(indexed(tmp_path, metadata).outlines()) == 3
