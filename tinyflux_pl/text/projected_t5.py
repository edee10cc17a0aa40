"""The network of DistillT5: a small T5 encoder projected to the width of a larger one."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

DROPOUT = 0.1


class T5ProjectionConfig(T5Config):
    """T5's configuration with the widths of the projection."""

    def __init__(
        self,
        project_in_dim: int = 768,
        project_out_dim: int = 4096,
        out_dim: int | None = None,
        **entries: object,
    ) -> None:
        super().__init__(**entries)
        self.project_in_dim = project_in_dim
        self.project_out_dim = project_out_dim if out_dim is None else out_dim


class T5EncoderWithProjection(T5PreTrainedModel):
    """Token ids (B, L) -> last_hidden_state (B, L, project_out_dim).

    Two linear layers without bias and a ReLU between them follow the encoder (Wang et al. 2025,
    2503.19897). The names of class, keys and configuration are those of the published weights.
    """

    config_class = T5ProjectionConfig
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "encoder.encoder.embed_tokens.weight": "encoder.shared.weight"
    }

    def __init__(self, config: T5ProjectionConfig) -> None:
        super().__init__(config)
        self.encoder = T5EncoderModel(config)
        self.final_projection = nn.Sequential(
            nn.Linear(config.project_in_dim, config.project_out_dim, bias=False),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(config.project_out_dim, config.project_out_dim, bias=False),
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The table of token embeddings."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, table: nn.Module) -> None:
        """Replace the table of token embeddings."""
        self.encoder.set_input_embeddings(table)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutput:
        """Projected states of the encoder's last layer."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return BaseModelOutput(last_hidden_state=self.final_projection(states))
