"""The networks of an autoencoder's training, from a checkpoint's description."""

from __future__ import annotations

import torch
from torch import nn

from tinyflux_pl.checkpoints.directory import Checkpoint, plain_keys
from tinyflux_pl.codecs.described_networks import described_networks
from tinyflux_pl.codecs.registry import build_codec
from tinyflux_pl.inference.described_parts import explained, require_plain
from tinyflux_pl.weights.key_diff import require_match, shapes_of

CURE = "use a checkpoint that your own run of an autoencoder has written"


def networks(checkpoint: Checkpoint) -> tuple[nn.Module, frozenset[str]]:
    """Newly initialised networks, and the names of all their tensors.

    Their skeleton is first compared with the header of the weights. CheckpointMismatch for a
    description that makes no sense.
    """
    config, where = checkpoint.config, str(checkpoint.path)
    require_plain(config, where)
    with explained(where):
        codec = build_codec(config["codec"]["name"], config["codec"]["config"])
        denoiser = config["denoiser"]
        described = denoiser["name"], denoiser["config"], codec.latent_spec
        with torch.device("meta"):
            skeleton = described_networks(*described)
        shapes = shapes_of(plain_keys(skeleton.state_dict()))
        require_match(shapes, checkpoint.shapes(), where, CURE)
        return described_networks(*described), frozenset(skeleton.state_dict())
