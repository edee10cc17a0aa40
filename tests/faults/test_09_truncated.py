"""9: a file of a checkpoint cut at any length is refused, and the checkpoint before it is taken."""

import pytest

from tests.faults.saving import Saver, judged
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.checkpoints.manifest import AVERAGED, CONFIG, MANIFEST, STATE, WEIGHTS
from tinyflux_pl.core.errors import CorruptCheckpoint
from tinyflux_pl.inference.open_checkpoint import open_checkpoint

LENGTHS = 16


@pytest.mark.parametrize("name", [WEIGHTS, AVERAGED, STATE, CONFIG, MANIFEST])
def test_every_truncated_file_is_detected(tmp_path, figure, capsys, name):
    saver = Saver(tmp_path, background=False, side=16)
    saver.save(1)
    saver.save(2)
    file, refused = tmp_path / "step_0000002" / name, 0
    original = file.read_bytes()
    lengths = sorted(
        {len(original) * i // (LENGTHS - 1) for i in range(LENGTHS - 1)} | {len(original) - 1}
    )
    assert len(lengths) == LENGTHS and lengths[0] == 0
    for length in lengths:
        file.write_bytes(original[:length])
        try:
            directory.read(file.parent)
        except CorruptCheckpoint as error:
            checkpoint, rejected = directory.newest_valid(tmp_path)
            assert checkpoint is not None and len(rejected) == 1
            refused += name in error.what and checkpoint.step == 1 and "step_0000002" in rejected[0]
    file.write_bytes(original[:-1])
    assert open_checkpoint(tmp_path).step == 1 and "skipped step_0000002" in capsys.readouterr().out
    file.write_bytes(original)
    assert judged(tmp_path).step == 2
    figure(9, f"{name} cut at {LENGTHS} lengths", refused, LENGTHS)
