"""Configuration -> objects. Classes receive objects and plain values, never a config."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping
from typing import Any

from tinyflux_pl.config import allowlist, signatures
from tinyflux_pl.core.errors import ConfigError


def plain(config: Any) -> Any:
    """A DictConfig or ListConfig as resolved plain containers.

    Raise ConfigError on ??? or a broken ${...}.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    if not OmegaConf.is_config(config):
        return config
    try:
        return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        key = error.full_key or "a key"
        raise ConfigError(
            f"{key} has no value", where=key, cure=f"add {key}=... to the command line"
        ) from error
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        what = str(error).splitlines()[0]
        raise ConfigError(
            f"cannot resolve {key}: {what}", where=key, cure="correct the ${...} in that value"
        ) from error


def build(node: Any, where: str = "", /, **extra: Any) -> Any:
    """Instantiate every `_target_` of plain containers, innermost first.

    `extra` goes to the outermost.

    `where` is the node's dotted key, for errors.

    Allowlist and signatures of the whole tree are checked before the first constructor runs. With
    `_partial_: true` a node becomes a factory. Raise ConfigError naming the key and the nearest
    one.
    """
    node = plain(node)
    if extra and not (isinstance(node, Mapping) and "_target_" in node):
        raise ConfigError(
            "a node without _target_ takes no objects",
            where=", ".join(extra),
            cure="name a _target_",
        )
    allowlist.check(node, where)
    _bind(node, where, tuple(extra), complete=True)
    return _built(node, where, extra)


def check_binds(node: Any, extra: Collection[str] = (), where: str = "") -> None:
    """Bind every `_target_` to its signature without building it.

    `extra` are names that code will add.

    Names and plain types are checked; required parameters are not, since code injects objects.
    """
    node = plain(node)
    allowlist.check(node, where)
    _bind(node, where, tuple(extra), complete=False)


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _bind(node: Any, where: str, extra: Collection[str], *, complete: bool) -> None:
    if isinstance(node, list | tuple):
        for index, value in enumerate(node):
            _bind(value, _join(where, index), (), complete=complete)
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        _bind(value, _join(where, key), (), complete=complete)
    if "_target_" in node:
        target, partial, arguments = _split(node, where)
        # a nested target is an object by the time it arrives, so only plain values are typed here
        values = {k: v for k, v in arguments.items() if not any(True for _ in allowlist.targets(v))}
        objects = (*extra, *(k for k in arguments if k not in values))
        signatures.check(target, values, where, objects, complete=complete and not partial)


def _built(node: Any, where: str, extra: Mapping[str, Any]) -> Any:
    if isinstance(node, list | tuple):
        return [_built(value, _join(where, index), {}) for index, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    if "_target_" not in node:
        return {key: _built(value, _join(where, key), {}) for key, value in node.items()}
    target, partial, arguments = _split(node, where)
    values = {key: _built(value, _join(where, key), {}) for key, value in arguments.items()}
    kwargs = signatures.check(target, values, where, tuple(extra), complete=not partial)
    kwargs |= extra
    return functools.partial(target, **kwargs) if partial else target(**kwargs)


def _split(node: Mapping[str, Any], where: str) -> tuple[Any, bool, dict[str, Any]]:
    """The target object, whether it is left partial, and its arguments."""
    partial = node.get("_partial_", False)
    arguments = {k: v for k, v in node.items() if k not in ("_target_", "_partial_")}
    reserved = [k for k in arguments if not isinstance(k, str) or k.startswith("_")]
    if reserved or not isinstance(partial, bool):
        raise ConfigError(
            "besides _target_ only _partial_ (true or false) is special, not "
            f"{reserved or partial!r}",
            where=where,
            cure="name every argument by its parameter",
        )
    return allowlist.resolve(node["_target_"], where), partial, arguments
