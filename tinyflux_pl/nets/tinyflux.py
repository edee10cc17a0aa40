"""TinyFlux: a small Flux whose conditioning vector and attention read the experts' ports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

from tinyflux_pl.core.precision import no_autocast
from tinyflux_pl.nets.attention import AttentionPrior
from tinyflux_pl.nets.blocks import DoubleBlock, SingleBlock
from tinyflux_pl.nets.embeddings import ScalarEmbedder, pool_text
from tinyflux_pl.nets.expert_heads import LunePredictor, SolPrior, map_at_tokens
from tinyflux_pl.nets.expert_ports import ExpertPorts
from tinyflux_pl.nets.norms import RMSNorm
from tinyflux_pl.nets.position_ids import join_ids, square_ids
from tinyflux_pl.nets.recompute import recomputed
from tinyflux_pl.nets.rope import RotaryEmbedding
from tinyflux_pl.nets.tinyflux_config import TinyFluxConfig


class TinyFluxDeep(nn.Module):
    """Double- then single-stream blocks over image tokens (B, N, C) and text tokens (B, L, D).

    Set `gradient_checkpointing = True` to recompute each block in the backward pass.
    Parameters and state keys of `TinyFluxConfig.reference` are those of the published v4.2.
    """

    def __init__(self, config: TinyFluxConfig) -> None:
        super().__init__()
        self.config, c = config, config
        self.gradient_checkpointing = False
        hidden = c.hidden_size
        self.img_in = nn.Linear(c.token_width, hidden)
        # more columns of img_in, by themselves so that zero columns change no rounding
        if c.inpaint_channels:
            self.inpaint_in = nn.Linear(c.inpaint_channels * c.patch_size**2, hidden, bias=False)
        self.txt_in = nn.Linear(c.joint_attention_dim, hidden)
        self.time_in = ScalarEmbedder(hidden, c.time_scale)
        self.vector_in = nn.Sequential(nn.SiLU(), nn.Linear(c.pooled_projection_dim, hidden))
        if c.use_t5_vec:
            self.t5_pool = nn.Sequential(
                nn.Linear(c.joint_attention_dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
            )
            self.text_balance = nn.Parameter(torch.zeros(()))
        if c.guidance_embeds:
            self.guidance_in = ScalarEmbedder(hidden, c.time_scale)
        if c.use_lune_expert:
            self.lune_predictor = LunePredictor(
                hidden,
                c.pooled_projection_dim,
                c.lune_hidden_dim,
                c.lune_expert_dim,
                hidden,
                c.lune_dropout,
            ).requires_grad_(not c.freeze_lune)
        if c.use_sol_prior:
            sizes = (c.sol_hidden_dim, c.num_attention_heads, c.sol_spatial_size, c.num_sol_stats)
            self.sol_prior = SolPrior(
                hidden, c.pooled_projection_dim, *sizes, c.sol_geometric_weight, c.sol_map
            )
            if c.reference_layout:  # unused, but part of the published files
                self.sol_prior.spatial_to_qk_scale = nn.Linear(1, c.num_attention_heads)
            self.sol_prior.requires_grad_(not c.freeze_sol)
            if c.reference_layout:  # unused: DDP would wait for its gradient
                self.sol_prior.spatial_to_qk_scale.requires_grad_(False)
        self.rope = RotaryEmbedding(tuple(c.axes_dims_rope), in_checkpoint=c.reference_layout)
        shape = (hidden, c.num_attention_heads, c.attention_head_dim, c.mlp_ratio)
        shape = (*shape, c.gelu_approximation, c.qk_norm, c.use_sol_prior)
        self.double_blocks = nn.ModuleList(DoubleBlock(*shape) for _ in range(c.num_double_layers))
        self.single_blocks = nn.ModuleList(SingleBlock(*shape) for _ in range(c.num_single_layers))
        self.final_norm = RMSNorm(hidden)
        self.final_linear = nn.Linear(hidden, c.token_width)
        if c.ports:
            self.ports = ExpertPorts(c.ports, hidden + c.pooled_projection_dim, hidden)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.final_linear.weight)
        if self.config.inpaint_channels:
            nn.init.zeros_(self.inpaint_in.weight)
        if self.config.ports:
            self.ports.initialise()
        if not self.config.zero_init:
            return
        # adaLN-Zero (DiT, sec. 3.2): closed gates make every block the identity at first. A single
        # block's MLP has no gate, so its last linear is closed instead.
        for block in cast(Iterable[DoubleBlock], self.double_blocks):
            nn.init.zeros_(block.img_norm1.linear.weight)
            nn.init.zeros_(block.txt_norm1.linear.weight)
        for block in cast(Iterable[SingleBlock], self.single_blocks):
            nn.init.zeros_(block.norm.linear.weight)
            nn.init.zeros_(block.mlp.fc2.weight)

    def forward(
        self,
        hidden_states: Float[Tensor, "b n c"],
        encoder_hidden_states: Float[Tensor, "b l d"],
        pooled_projections: Float[Tensor, "b p"],
        timestep: Float[Tensor, " b"],
        img_ids: Num[Tensor, "*bi n 3"] | None = None,
        txt_ids: Num[Tensor, "*bt l 3"] | None = None,
        lune_features: Float[Tensor, "b e"] | None = None,
        sol_stats: Float[Tensor, "b s"] | None = None,
        sol_spatial: Float[Tensor, "b s1 s2"] | None = None,
        guidance: Float[Tensor, " b"] | None = None,
        encoder_attention_mask: Bool[Tensor, "b l"] | None = None,
        lune_mask: Bool[Tensor, " b"] | None = None,
        sol_mask: Bool[Tensor, " b"] | None = None,
        inpaint: Float[Tensor, "b n k"] | None = None,
        reference_tokens: int = 0,
        ports: Mapping[str, Tensor] | None = None,
        port_masks: Mapping[str, Tensor] | None = None,
        return_expert_pred: bool = False,
    ) -> Float[Tensor, "b n c"] | tuple[Tensor, dict[str, Any]]:
        """The prediction of each image token, and of the heads with `return_expert_pred`.

        timestep is 0 at noise and 1 at data. img_ids are (0, y, x), shared or one set a sample;
        without them the tokens must form a square. Text where the attention mask is False has no
        influence. lune_mask and sol_mask are True where a sample reads the teacher's features
        instead of the heads' predictions; `ports` and `port_masks` do the same for the ports of
        config.ports, by name. inpaint holds further channels of each token
        (config.inpaint_channels). The last `reference_tokens` belong to reference images: their ids
        begin with 1, 2 ..., they get no prediction.
        """
        dtype = self.img_in.weight.dtype
        if img_ids is None:
            img_ids = square_ids(hidden_states)
        text = encoder_hidden_states.to(dtype)
        if encoder_attention_mask is not None:
            text = text.masked_fill(~encoder_attention_mask[..., None], 0)
        # The residual stream stays in the parameters' dtype under autocast: forty bf16 sums lose
        # too much.
        img = self.img_in(hidden_states.to(dtype)).to(dtype)
        txt = self.txt_in(text).to(dtype)
        if inpaint is not None:
            img = img + self.inpaint_in(inpaint.to(dtype)).to(dtype)
        num_image_tokens = img.shape[1] - reference_tokens
        vec, prior, info = self._conditioning(
            text,
            encoder_attention_mask,
            pooled_projections.to(dtype),
            timestep.float(),
            guidance,
            (lune_features, lune_mask),
            (sol_stats, sol_spatial, sol_mask),
        )
        if self.config.ports:
            image_ids = img_ids[..., :num_image_tokens, :]
            pooled = pooled_projections.to(dtype)
            time = self.time_in(timestep.float())
            vector, map_tokens, info["ports"] = self.ports(
                time, pooled, image_ids, ports or {}, port_masks or {}
            )
            if vector is not None:
                vec = vec + vector.to(vec.dtype)
            if map_tokens is not None:  # maps do not cover reference images
                img = img + F.pad(map_tokens.to(img.dtype), (0, 0, 0, reference_tokens))
        if prior is not None:
            weights = map_at_tokens(prior.importance, img_ids[..., :num_image_tokens, :])
            # the map does not cover reference images: they get its mean
            reference_weights = weights.mean(-1, keepdim=True).expand(-1, reference_tokens)
            prior = AttentionPrior(prior.temperature, torch.cat((weights, reference_weights), -1))
        vec = F.silu(vec)
        double_table, single_table = self._rotations(img_ids, txt_ids, txt.shape[1])
        key_mask = None
        if encoder_attention_mask is not None:
            key_mask = F.pad(encoder_attention_mask, (0, img.shape[1]), value=True)[:, None, None]
        for block in self.double_blocks:
            txt, img = self._run(block, txt, img, vec, double_table, key_mask, prior)
        tokens = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            tokens = self._run(block, tokens, vec, single_table, key_mask, prior)
        last = self.final_norm(tokens[:, txt.shape[1] :][:, :num_image_tokens])
        with no_autocast(last.device):  # so that the prediction is not rounded to bf16
            out = self.final_linear(last.to(dtype))
        return (out, info) if return_expert_pred else out

    def _conditioning(
        self,
        text: Float[Tensor, "b l d"],
        mask: Bool[Tensor, "b l"] | None,
        pooled: Float[Tensor, "b p"],
        t: Float[Tensor, " b"],
        guidance: Float[Tensor, " b"] | None,
        lune: tuple[Tensor | None, Tensor | None],
        sol: tuple[Tensor | None, Tensor | None, Tensor | None],
    ) -> tuple[Tensor, AttentionPrior | None, dict[str, Any]]:
        """The conditioning vector (B, D), the attention prior and the heads' outputs."""
        time = self.time_in(t)
        text_vec = self.vector_in(pooled)
        if self.config.use_t5_vec:
            balance = torch.sigmoid(self.text_balance)
            text_vec = balance * text_vec + (1 - balance) * self.t5_pool(pool_text(text, mask))
        vec = time + text_vec
        prior = None
        info: dict[str, Any] = {"lune": None, "sol": None}
        if self.config.use_lune_expert:
            info["lune"] = self.lune_predictor(time, pooled, *lune)
            vec = vec + info["lune"]["expert_signal"]
        if self.config.use_sol_prior:
            info["sol"] = self.sol_prior(time, pooled, t, *sol)
            temperature = info["sol"]["temperature"]
            if not self.config.per_head_temperature:
                temperature = temperature.mean(1, keepdim=True)
            prior = AttentionPrior(temperature.clamp(min=0.1), info["sol"]["spatial_importance"])
        if self.config.guidance_embeds and guidance is not None:
            vec = vec + self.guidance_in(guidance)
        return vec.to(pooled.dtype), prior, info

    def _rotations(
        self, img_ids: Tensor, txt_ids: Tensor | None, length: int
    ) -> tuple[Tensor, Tensor]:
        """Tables over text then image for the double and the single blocks.

        The published network rotates text in single blocks only, and by default not at all (id 0).
        """
        unrotated = torch.zeros(length, 3, device=img_ids.device)
        if txt_ids is None:
            txt_ids = F.pad(torch.arange(length, device=img_ids.device)[:, None], (0, 2)).float()
            txt_ids = txt_ids if self.config.text_position_ids else unrotated
        single = self.rope(join_ids(txt_ids, img_ids))
        double = (
            single if self.config.text_position_ids else self.rope(join_ids(unrotated, img_ids))
        )
        return tuple(table[:, None] if table.dim() == 4 else table for table in (double, single))

    def _run(self, block: nn.Module, *inputs: Any) -> Any:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return recomputed(block, *inputs)
        return block(*inputs)
