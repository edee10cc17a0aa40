"""Crops of photographs: the same everywhere, and none of validation in training."""

import numpy as np
import pytest

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.data import photographs
from tinyflux_pl.data.photographs import Photographs


def test_a_crop_depends_on_its_index_alone():
    few, many = Photographs(4, 16), Photographs(40, 16)
    for index in range(4):
        assert np.array_equal(few[index].image, many[index].image)
        assert few[index].sample_id == many[index].sample_id
    assert many[0].image.shape == (16, 16, 3)
    assert len({many[index].sample_id for index in range(40)}) == 40
    assert few.fingerprint() != many.fingerprint()
    assert few.sample_keys() == many.sample_keys()[:4]
    with pytest.raises(IndexError):
        few[4]


def test_no_pixel_of_a_validation_crop_is_in_a_training_crop(monkeypatch):
    """Photographs whose pixels say in which column they lie."""
    columns = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, :, None], (80, 200, 3))
    monkeypatch.setattr(photographs, "photographs", lambda: (columns,) * 4)
    train, validation = Photographs(60, 8), Photographs(60, 8, "validation")
    assert max(train[i].image.max() for i in range(60)) < 150
    assert min(validation[i].image.min() for i in range(60)) >= 150


def test_other_splits_are_refused():
    with pytest.raises(ConfigError, match="no such split"):
        Photographs(1, 8, "test")
