"""Original sizes: the nearest ratio, the octave of the side, and what fitting loses."""

import pytest

from tinyflux_pl.data.images.size_histogram import OriginalSizes, lost_share


def test_images_are_binned_by_nearest_aspect_ratio_and_octave():
    sizes = OriginalSizes((64, 64))
    for height, width in ((512, 768), (520, 768), (100, 100), (48, 48), (1920, 1080)):
        sizes.add(height, width)
    assert sizes.lines() == [
        ("3:2", "512 to 1023", 2, pytest.approx((1 / 3 + 1 - 520 / 768) / 2), 0),
        ("1:1", "32 to 63", 1, 0.0, 1),
        ("1:1", "64 to 127", 1, 0.0, 0),
        ("9:16", "1024 to 2047", 1, pytest.approx(1 - 9 / 16), 0),
    ]


@pytest.mark.parametrize(
    ("size", "frame", "lost"),
    [
        ((64, 64), (32, 32), 0),
        ((64, 128), (32, 32), 0.5),
        ((128, 64), (32, 32), 0.5),
        ((40, 80), (20, 40), 0),
    ],
)
def test_the_share_lost_by_cropping_or_padding_is_exact(size, frame, lost):
    # cropped, half of a 1:2 picture goes; padded, half of the square frame is white
    assert lost_share(size, frame) == pytest.approx(lost)


def test_histogram_counts_round_trip():
    sizes, again = OriginalSizes((64, 64)), OriginalSizes((64, 64))
    sizes.add(30, 90)
    again.restore(sizes.state())
    assert again.lines() == sizes.lines() == [("3:1", "32 to 63", 1, pytest.approx(2 / 3), 1)]
