"""Attention kernels of a diffusers network, by diffusers' names, chosen for one network alone."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from tinyflux_pl.core.errors import ConfigError, MissingDependency
from tinyflux_pl.core.nearest_name import did_you_mean

WHERE = "model.attention_backend"
DEFAULT = "native"
CURE = "use model.attention_backend=native, or a device that has this kernel"


def require_known(backend: str) -> None:
    """Raise ConfigError for an unknown backend, naming the nearest, or one that fetches code."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    names = [name.value for name in AttentionBackendName if not name.value.endswith("_hub")]
    if backend in names:
        return
    cure = did_you_mean(backend, names, f"one of {', '.join(names)}")
    if backend.endswith("_hub"):
        cure = (
            "backends that end in _hub fetch and run code: install the package and name it without "
            "_hub"
        )
    raise ConfigError(f"no attention backend {backend!r}", where=WHERE, cure=cure)


def choose(net: Any, backend: str) -> None:
    """Make every attention of `net` use `backend`; other networks are not affected.

    Raises as `require_known`, ConfigError for a network that has no choice, MissingDependency where
    the backend's package is not installed.
    """
    require_known(backend)
    processors = (getattr(module, "processor", None) for module in net.modules())
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        if backend != DEFAULT:
            what = f"{type(net).__name__} only supports PyTorch's default attention"
            raise ConfigError(what, where=WHERE, cure="leave it at native")
        return
    with _only_here(), _installed(backend):
        net.set_attention_backend(backend)


def require_usable(
    backend: str, device: str, dtype: torch.dtype, *, backward: bool = False
) -> None:
    """Raise ConfigError if the kernel fails on this device and dtype, tried on a few tokens.

    `backward` tries its gradient too, which kernels for drawing alone do not have.
    MissingDependency where its package is not installed.
    """
    require_known(backend)
    if backend == DEFAULT:
        return
    from diffusers.models import attention_dispatch
    from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

    with _installed(backend):
        attention_dispatch._check_attention_backend_requirements(AttentionBackendName(backend))
    query = torch.zeros(1, 16, 2, 64, device=device, dtype=dtype, requires_grad=backward)
    try:
        with torch.set_grad_enabled(backward), _only_here():
            output = dispatch_attention_fn(
                query, query, query, backend=AttentionBackendName(backend)
            )
            if backward:
                output.sum().backward()
    # each kernel has its own: missing packages, unsupported devices, failed compilation
    except Exception as error:
        reason = next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        )
        use = "train" if backward else "run"
        what = f"attention backend {backend} does not {use} on {device} in {dtype}: {reason[:200]}"
        raise ConfigError(what, where=WHERE, cure=CURE) from error


@contextmanager
def _installed(backend: str) -> Generator[None]:
    try:
        yield
    except (RuntimeError, ImportError) as error:
        cure = "install its package, or use native"
        raise MissingDependency(f"{backend}: {error}", where=WHERE, cure=cure) from error


@contextmanager
def _only_here() -> Generator[None]:
    """Silence diffusers' warning about experimental features and restore its global backend."""
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry
    from diffusers.utils import logging

    level, active = logging.get_verbosity(), _AttentionBackendRegistry.get_active_backend()[0]
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        _AttentionBackendRegistry.set_active_backend(active)
