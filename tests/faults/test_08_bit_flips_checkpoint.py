"""Fault 8: a flipped bit in a checkpoint is detected, and the previous checkpoint is used."""

import random

from tests.faults.saving import Saver, judged
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import CorruptCheckpoint


def test_every_flipped_bit_of_a_checkpoint_is_detected(tmp_path, figure):
    saver = Saver(tmp_path, background=False, side=16)
    saver.save(1)
    saver.save(2)
    judged(tmp_path)
    tried, detected, chance = 100, 0, random.Random(8)
    files = sorted((tmp_path / "step_0000002").iterdir())
    assert len(files) == 5
    for i in range(tried):
        file = files[i % len(files)]
        original = file.read_bytes()
        rotten = bytearray(original)
        rotten[chance.randrange(len(rotten))] ^= 1 << chance.randrange(8)
        file.write_bytes(rotten)
        try:
            directory.read(file.parent)
        except CorruptCheckpoint as error:
            checkpoint, rejected = directory.newest_valid(tmp_path)
            is_named = file.name in error.what and len(rejected) == 1 and file.name in rejected[0]
            detected += (
                is_named
                and checkpoint is not None
                and checkpoint.step == 1
                and "step_0000002" in rejected[0]
            )
        file.write_bytes(original)
    assert judged(tmp_path).step == 2
    figure(8, "bit flips in a checkpoint", detected, tried)
