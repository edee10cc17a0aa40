"""Pictures go to the frame nearest in ratio; no frame has more than the area asked for."""

import math

import pytest

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data.images.aspect_buckets import AspectBuckets, nearest


def test_frames_are_multiples_of_the_step_within_limits_and_area():
    frames = AspectBuckets((512, 512), 64, 256, 1024).frames()
    assert all(h % 64 == w % 64 == 0 and min(h, w) >= 256 and max(h, w) <= 1024 for h, w in frames)
    assert all(h * w <= 512 * 512 for h, w in frames) and (512, 512) in frames
    assert {(w, h) for h, w in frames} == set(frames)
    assert (256, 1024) in frames and (448, 576) in frames


def test_a_picture_goes_to_the_nearest_ratio_in_the_logarithm():
    frames = [(1, 1), (1, 2), (2, 1)]
    limit = math.sqrt(2)
    assert nearest((1000, int(1000 * limit) - 1), frames) == (1, 1)
    assert nearest((1000, int(1000 * limit) + 2), frames) == (1, 2)
    assert nearest((int(1000 * limit) + 2, 1000), frames) == (2, 1)
    assert nearest((10, 10), [(8, 8), (16, 16)]) == (16, 16)


def test_frames_with_few_pictures_are_closed_and_none_is_left_out():
    sizes = [(64, 64)] * 5 + [(64, 128)] * 2 + [(64, 96)]
    every = AspectBuckets((64, 64), 8).assign(sizes)
    assert len(set(every)) == 3
    joined = AspectBuckets((64, 64), 8, least=2).assign(sizes)
    assert len(joined) == 8 and sorted(map(joined.count, set(joined))) in ([2, 6], [3, 5])
    alone = AspectBuckets((64, 64), 8, least=100).assign(sizes)
    assert len(set(alone)) == 1


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"enabled": True, "step": 0}, "data.buckets.step"),
        ({"enabled": True, "least": 0}, "data.buckets.least"),
        ({"enabled": True, "step": 100}, "data.buckets"),
        ({"enabled": True, "min_side": 80}, "data.buckets"),
        ({"enabled": True, "stop": 8}, "data.buckets.stop"),
    ],
)
def test_wrong_keys_are_refused_by_name(keys, where):
    with pytest.raises(ConfigError) as caught:
        AspectBuckets.of((64, 64), {"step": 8, **keys})
    assert caught.value.where == where


def test_buckets_are_off_unless_enabled():
    assert AspectBuckets.of((64, 64), {"enabled": False, "step": 8}) is None
    assert AspectBuckets.of((64, 64), None) is None
