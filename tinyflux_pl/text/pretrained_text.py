"""Base class of text encoders made of pretrained transformers networks."""

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyflux_pl.core.alignment import align
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.types import TextEmbeddings
from tinyflux_pl.text import encoder_config, pretrained, simulation
from tinyflux_pl.text.extended_encoder import ExtendedEncoder, add_tokens
from tinyflux_pl.text.learned_words import WordReader
from tinyflux_pl.text.outlined_encoder import outlined
from tinyflux_pl.text.tokenizer import load_tokenizer


class PretrainedText(WordReader):
    """Base of text encoders: files, loading, moving, freeing and fingerprints of networks.

    It has one or more networks, each under a key such as "t5". A subclass sets `kinds` (key ->
    class of transformers) and `parts` (key -> name of the network in a single file), and implements
    `_locate` and the encoding. Its constructor arguments are attributes of the same names. Headers
    are checked when the encoder is first asked about its width; weights are read on first use.
    """

    kinds: dict[str, str]
    parts: dict[str, str]
    outlined = outlined

    def __init__(
        self,
        dtype: str,
        batch_size: int,
        variant: str | None,
        tokenizer: str | None = None,
        tokenizer_revision: str | None = None,
    ) -> None:
        self.dtype = dtype
        self.batch_size = batch_size
        self.variant = variant
        self.tokenizer = tokenizer
        self.tokenizer_revision = tokenizer_revision
        self.device = torch.device("cpu")
        self._models: dict[str, tuple[Any, Any]] = {}  # key -> (tokenizer, network)
        self._move: Callable[[str, Any], None] | None = None  # None: a network moves as one
        self.simulation_seed: int | None = None  # of the random networks of `simulated`

    @abstractmethod
    def _locate(self, key: str) -> tuple[Path, Path]:
        """Folder or single file of a network, and the folder of its tokenizer.

        ConfigError without weights.
        """

    @abstractmethod
    def _inside(self, key: str) -> tuple[str, str]:
        """Places of a network and of its tokenizer in a release's folder."""

    def _structure(self, key: str) -> dict[str, Any] | None:
        """config.json as given by the user, for a single file or a plan without weights."""
        return None

    def _small(self) -> dict[str, Any]:
        """The constructor's arguments that differ in a small encoder, without weights.

        ConfigError where there is no such rule.
        """
        cure = "simulate another model=, whose text= has structures"
        raise ConfigError("this encoder has no small form", where=f"text: {self.name}", cure=cure)

    def simulated(self, seed: int) -> "PretrainedText":
        """Itself in small: random networks and a tokenizer of bytes, in memory alone."""
        small = type(self)(**{**self.config(), **self._small()})
        small.simulation_seed = seed
        return small

    def write_release(self, folder: Path) -> None:
        """Write the networks and their tokenizers into their places in a release's folder."""
        for key in self._keys:
            tokenizer, network = self._loaded(key)
            inside, tokens = self._inside(key)
            network.save_pretrained(folder / inside, safe_serialization=True)
            tokenizer.save_pretrained(folder / tokens)

    @property
    def _keys(self) -> Sequence[str]:
        """Keys of the networks that are loaded."""
        return tuple(self.kinds)

    @property
    def _tokenizer_key(self) -> str:
        """Key of the network whose tokens `lengths` counts."""
        return self._keys[0]

    @property
    def _has_only_structures(self) -> bool:
        """True without files on disk: structures describe the networks (memory plans)."""
        return False

    @cached_property
    def _paths(self) -> dict[str, tuple[Path, Path]]:
        paths = {}
        for key in self._keys:
            path, tokenizer = self._locate(key)
            structure = self._structure(key)
            pretrained.require_encoder(
                self.kinds[key], path, tokenizer, self.parts[key], structure, self.variant
            )
            paths[key] = (path, tokenizer)
        return paths

    def _described_by(self, key: str) -> tuple[Path | None, dict[str, Any] | None]:
        """Path of the config.json of a network (None without files), and its structure."""
        path = None if self._has_only_structures else self._paths[key][0]
        return path, self._structure(key)

    def _width(self, key: str, name: str) -> int:
        """The entry `name` of a network's configuration."""
        path, structure = self._described_by(key)
        return encoder_config.width_of(path, name, self.kinds[key], structure)

    def skeletons(self) -> Mapping[str, nn.Module]:
        """The networks without values, on the meta device."""
        described = {key: encoder_config.described(*self._described_by(key)) for key in self._keys}
        return {
            key: encoder_config.skeleton(self.kinds[key], config)
            for key, config in described.items()
        }

    @torch.no_grad()
    def null(self) -> TextEmbeddings:
        """The unconditional: the empty prompt."""
        return self.encode([""])

    @cached_property
    def _tokenizer(self) -> Any:
        simulated = self.simulation_seed is not None
        folder = None if simulated else self._paths[self._tokenizer_key][1]
        tokenizer = simulation.tokenizer() if folder is None else load_tokenizer(folder)
        if self.words:
            add_tokens(tokenizer, self.words)
        return tokenizer

    def word_widths(self) -> dict[str, int]:
        """Widths of the encoders' tables, by their names in single files (clip_l, t5xxl ...)."""
        tables = {key: net.get_input_embeddings() for key, net in self.skeletons().items()}
        return {self.parts[key]: table.embedding_dim for key, table in tables.items()}

    def word_vectors(self, word: str) -> dict[str, Tensor]:
        """Table -> the rows of the word's tokens."""
        vectors = {}
        for key in self._keys:
            tokenizer, model = self._loaded(key)
            ids = tokenizer(word, add_special_tokens=False)["input_ids"]
            if not ids:
                raise ConfigError(
                    f"{word!r} has no token", where="method.init_word", cure="give a word"
                )
            vectors[self.parts[key]] = model.get_input_embeddings().weight[ids].float().cpu()
        return vectors

    def _forget(self) -> None:
        """Drop networks and tokenizer of other words."""
        self._models = {}
        vars(self).pop("_tokenizer", None)

    def _gradients(self) -> Any:
        """Inside, the networks keep the graph to the words' vectors, if gradients are enabled."""
        return torch.set_grad_enabled(bool(self.words) and torch.is_grad_enabled())

    def config(self) -> dict[str, Any]:
        """The constructor's arguments: they rebuild this encoder."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    @cached_property
    def _hashes(self) -> dict[str, dict[str, str]]:
        """SHA-256 of each network's weights and vocabulary, by file name."""
        if self.simulation_seed is not None:
            return {key: {"simulated": str(self.simulation_seed)} for key in self._keys}
        return {key: pretrained.hash_of(*paths, self.variant) for key, paths in self._paths.items()}

    def _deciding_configs(self) -> dict[str, dict[str, Any]]:
        """The part of each network's config.json that decides its embeddings."""
        return {
            key: encoder_config.deciding(
                self.kinds[key], encoder_config.described(*self._described_by(key))
            )
            for key in self._keys
        }

    def to(self, device: torch.device | str) -> "PretrainedText":
        """Move, now or when loaded."""
        self.device = torch.device(device)
        for _, model in self._models.values():
            model.to(self.device)
        return self

    def moved_by(self, move: Callable[[str, Any], None]) -> None:
        """Have `move` bring each network to the device when it is loaded."""
        self._move = move

    def _moved(self, key: str, model: Any) -> Any:
        if self._move is None:
            model.to(self.device)
            align(model)
        else:
            self._move(key, model)
        return model

    def free(self) -> None:
        """Release the networks; the next use reads them again."""
        self._models.clear()

    def _loaded(self, key: str) -> tuple[Any, Any]:
        """Tokenizer and network, read on first use.

        They are read outside inference mode, which would keep gradients from going through them.
        """
        with torch.inference_mode(False):
            return self._read(key)

    def _read(self, key: str) -> tuple[Any, Any]:
        if key not in self._models and self.simulation_seed is not None:
            structure = encoder_config.described(*self._described_by(key))
            number, seed = getattr(torch, self.dtype), self.simulation_seed
            model = simulation.encoder(self.kinds[key], structure, number, seed, key)
            self._models[key] = self._extended(key, simulation.tokenizer(), self._moved(key, model))
        if key not in self._models:
            kind, part, structure = self.kinds[key], self.parts[key], self._structure(key)
            path, folder = self._paths[key]
            tokenizer = pretrained.tokenizer_for(kind, path, folder, structure)
            model = pretrained.load_encoder(kind, path, self.dtype, part, structure, self.variant)
            self._models[key] = self._extended(key, tokenizer, self._moved(key, model))
        return self._models[key]

    def _extended(self, key: str, tokenizer: Any, model: Any) -> tuple[Any, Any]:
        if self.words:
            model = ExtendedEncoder(model, tokenizer, self.parts[key], self.words).eval()
        return tokenizer, model

    def _batches(self, prompts: Sequence[str], size: int) -> Iterator[list[str]]:
        """The prompts in lists of at most `size`."""
        yield from (list(prompts[i : i + size]) for i in range(0, len(prompts), size))
