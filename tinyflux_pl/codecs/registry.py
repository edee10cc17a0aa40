"""Name -> codec, for saved models."""

from typing import Any

from tinyflux_pl.codecs.autoencoder_flux2 import AutoencoderFlux2Codec
from tinyflux_pl.codecs.autoencoder_kl import AutoencoderKLCodec
from tinyflux_pl.codecs.bezier import BezierCodec
from tinyflux_pl.codecs.identity import Identity
from tinyflux_pl.codecs.pixel_folding import PixelFolding
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.protocols import Codec

CODECS: dict[str, Any] = {
    "bezier": BezierCodec,
    "pixels": PixelFolding,
    "identity": Identity,
    "autoencoder_kl": AutoencoderKLCodec,
    "flux1": AutoencoderKLCodec,
    "flux1_unshifted": AutoencoderKLCodec,
    "flux2": AutoencoderFlux2Codec,
    "sd3": AutoencoderKLCodec,
    "sdxl": AutoencoderKLCodec,
    "sd15": AutoencoderKLCodec,
}


def build_codec(name: str, config: dict[str, Any]) -> Codec:
    """Rebuild the codec that was saved as (name, config())."""
    if name not in CODECS:
        raise ConfigError(
            f"unknown codec {name!r}", where="codec", cure=f"choose {', '.join(sorted(CODECS))}"
        )
    try:
        return CODECS[name](**config)
    except TypeError as error:  # a key that the codec does not know
        raise ConfigError(
            f"codec {name!r}: {error}", where="codec", cure="use the keys of its config()"
        ) from error
