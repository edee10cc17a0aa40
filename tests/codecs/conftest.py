"""A small autoencoder in the layout of a release, and pictures for it."""

import pytest
import torch

from tests import releases


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    numbers = dict(latent_channels=6, scaling_factor=0.3611, shift_factor=0.1159)
    return folder, releases.vae(folder, block_out_channels=(8, 8, 16), **numbers)


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
