"""One class for each protocol of core.protocols, with its members and no others."""

from typing import ClassVar

import torch
from torch import nn

from tinyflux_pl.core.protocols import Codec, TextEncoder
from tinyflux_pl.core.record import Record
from tinyflux_pl.core.specs import ExpertSpec, LatentSpec, TextSpec
from tinyflux_pl.core.types import Batch, Prediction, PromptLength, TextEmbeddings

CHANNELS, WIDTH, LENGTH = 3, 4, 2


class MinimalPath:
    """x_t = (1 - t) data + t noise, with the members of the protocol and no others."""

    name, t_noise, t_data = "minimal", 1.0, 0.0

    def alpha(self, t):
        return 1 - t

    def sigma(self, t):
        return t

    def alpha_rate(self, t):
        return -torch.ones_like(t)

    def sigma_rate(self, t):
        return torch.ones_like(t)

    def log_snr(self, t):
        return 2 * torch.logit(1 - t, eps=1e-6)

    def time_of_log_snr(self, log_snr):
        return torch.sigmoid(-log_snr / 2)

    def interpolate(self, data, noise, t):
        t = t.reshape(-1, 1, 1, 1)
        return (1 - t) * data + t * noise

    def velocity(self, data, noise, t):
        return noise - data

    def config(self):
        return {}


class MinimalDenoiser:
    """Predicts zero data; no torch module."""

    name, lora_targets, prediction, ports, patch_size, image_size = (
        "minimal",
        (),
        "x0",
        ("vec",),
        1,
        None,
    )
    reads_guidance = reads_references = reads_position_ids = False
    reference_size, inpaint_channels, overflows, weight_files = None, 0, "", ()
    reference_parts = ()
    path, latent_spec, text_spec = (
        MinimalPath(),
        LatentSpec(CHANNELS, 1),
        TextSpec(WIDTH, LENGTH, WIDTH),
    )

    def __init__(self):
        self.weight = nn.Parameter(torch.zeros(1))

    def __call__(self, x_t, t, cond):
        return Prediction(x_t * self.weight, {"vec": self.weight.expand(len(x_t), 1)})

    def require_size(self, height, width):
        pass

    def require_trainable(self):
        pass

    def hint_shape(self, height, width):
        return None

    def enable_gradient_checkpointing(self):
        pass

    def block_stack(self):
        return ()

    def port_gates(self):
        return {}

    def parameters(self):
        yield self.weight

    def config_dict(self):
        return {}


class MinimalCodec(Codec):
    name, latent_spec = "minimal", LatentSpec(CHANNELS, 1)

    def encode(self, images):
        return images / 2

    def decode(self, latents):
        return latents * 2

    def config(self):
        return {}

    def fingerprint(self):
        return {"codec": self.name}


class MinimalText(TextEncoder):
    name, text_spec = "minimal", TextSpec(WIDTH, LENGTH, WIDTH)

    def encode(self, prompts):
        size = torch.tensor([[float(len(prompt))] for prompt in prompts]).expand(-1, WIDTH)
        tokens = size[:, None].expand(-1, LENGTH, -1)
        return TextEmbeddings(tokens, torch.ones(len(prompts), LENGTH, dtype=torch.bool), size)

    def null(self):
        return self.encode([""])

    def lengths(self, prompts):
        return [PromptLength(1, 0) for _ in prompts]

    def config(self):
        return {}

    def fingerprint(self):
        return {"text": self.name}


class MinimalRecords:
    name, reads_files = "minimal", False

    def __len__(self):
        return 4

    def __getitem__(self, index):
        image = torch.full((4, 4, 3), index, dtype=torch.uint8).numpy()
        return Record(image, f"number {index}", index)

    def fingerprint(self):
        return {"records": self.name}

    def sample_keys(self):
        return None


class MinimalExtractor:
    name, device = "minimal", torch.device("cpu")

    def fingerprint(self):
        return {"expert": self.name}

    def extract(self, latents, text, sample_ids):
        return {"minimal.features": latents.mean((1, 2, 3))[:, None, None].expand(-1, 2, 1)}


class MinimalExpert:
    name, spec = "minimal", ExpertSpec("minimal", {"features": (1,)}, (0.0, 1.0))
    columns: ClassVar = {"features": "vec"}

    def ports(self, experts, t):
        return {"vec": experts["minimal.features"].mean(1)}

    def losses(self, heads, targets, present):
        return (heads["vec"] - targets["vec"]).square().mean()

    def weight_at(self, step):
        return 1.0

    def dropout_at(self, step):
        return 0.0

    def port_options(self):
        return {}

    def extractor(self, teacher, student_path, seed):
        return MinimalExtractor()


class MinimalVerifier:
    claims = ("bright",)

    def stated(self, prompts):
        return {"bright": torch.ones(len(prompts), dtype=torch.bool)}

    def check(self, images, prompts):
        bright = images.mean((1, 2, 3)) > 0
        return {"bright": bright, "all": bright}

    def reading(self, images):
        return None


def batch():
    numbers = torch.arange(2)
    captions = ["red", "blue"]
    experts = {"minimal.features": torch.ones(2, 2, 1)}
    present = {"minimal": torch.ones(2, dtype=torch.bool)}
    latents = torch.ones(2, CHANNELS, 4, 4)
    return Batch(
        latents, MinimalText().encode(captions), numbers, numbers, captions, experts, present
    )
