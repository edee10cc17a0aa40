"""Names behind the **keywords of a target, so that wrong ones are refused too."""

from __future__ import annotations

import typing
from typing import Any

from tinyflux_pl.core.fields_of import FieldsOf

# What Lightning's loggers hand on to wandb.init and to TensorBoard's writer: what changes where a
# run is listed, nothing that says where it is sent to or what is started there.
PASSED_ON: dict[str, dict[str, Any]] = {
    "WandbLogger": {
        "entity": str | None,
        "group": str | None,
        "job_type": str | None,
        "notes": str | None,
        "tags": list[str] | None,
        "mode": typing.Literal["online", "offline", "disabled"],
        "resume": typing.Literal["allow", "never", "must", "auto"] | bool | None,
    },
    "TensorBoardLogger": {"max_queue": int, "flush_secs": int, "filename_suffix": str},
}


def hints(target: Any, annotation: Any) -> dict[str, Any] | None:
    """name -> annotation of the allowed **keywords of a target, by their annotation.

    None: any name.
    """
    if typing.get_origin(annotation) is typing.Unpack:
        return typing.get_type_hints(typing.get_args(annotation)[0])
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, FieldsOf):
            return extra.hints()
    if getattr(target, "__module__", "").startswith("lightning."):
        return PASSED_ON.get(getattr(target, "__qualname__", ""))
    return None
