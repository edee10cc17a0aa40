"""8: a flipped bit anywhere in a checkpoint is found, and the checkpoint before it is taken."""

import random

from tests.faults.saving import Saver, judged
from tinyflux_pl.checkpoints import directory
from tinyflux_pl.core.errors import CorruptCheckpoint


def test_every_flipped_bit_of_a_checkpoint_is_found(tmp_path, figure):
    saver = Saver(tmp_path, background=False, side=16)
    saver.save(1)
    saver.save(2)
    judged(tmp_path)
    tried, detected, chance = 100, 0, random.Random(8)
    files = sorted((tmp_path / "step_0000002").iterdir())
    assert len(files) == 5
    for i in range(tried):
        file = files[i % len(files)]
        whole = file.read_bytes()
        rotten = bytearray(whole)
        rotten[chance.randrange(len(rotten))] ^= 1 << chance.randrange(8)
        file.write_bytes(rotten)
        try:
            directory.read(file.parent)
        except CorruptCheckpoint as error:
            found, rejected = directory.newest_valid(tmp_path)
            said = file.name in error.what and len(rejected) == 1 and file.name in rejected[0]
            detected += (
                said and found is not None and found.step == 1 and "step_0000002" in rejected[0]
            )
        file.write_bytes(whole)
    assert judged(tmp_path).step == 2
    figure(8, "bit flips in a checkpoint", detected, tried)
