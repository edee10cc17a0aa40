"""Pictures drawn before the first step of a run, stored by what determines them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tinyflux_pl.app.components import Parts
from tinyflux_pl.app.generated.class_pictures import ClassDrawer
from tinyflux_pl.app.generated.drawn_set import DrawnSet
from tinyflux_pl.app.generated.teacher_pictures import TeacherDrawer
from tinyflux_pl.app.memory.planned_parts import without_unneeded_weights
from tinyflux_pl.app.preflight.verdict import ONLY
from tinyflux_pl.app.released import release_settings
from tinyflux_pl.config.schema import Train
from tinyflux_pl.core import fingerprint, interruption, progress
from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.core.file_lock import locked
from tinyflux_pl.core.rank import is_rank_zero

if TYPE_CHECKING:
    from tinyflux_pl.app.memory.planned_drawing import PlannedDrawing
    from tinyflux_pl.engine.memory_plan import Stage
    from tinyflux_pl.sampling.images import ImageSampler

AT_ONCE = 16  # pictures that are drawn together, whatever the memory: it decides their last bits
POLL_SECONDS = 0.5


class Drawer(Protocol):
    """Draws the pictures of one class of records, which `target` names.

    `kind` names folder and files.
    """

    target: str
    kind: str

    def content(self, parts: Parts[Train], node: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data that determines the pictures, except device and number format."""
        ...

    def prompts(self, node: Mapping[str, Any]) -> Sequence[str]:
        """The prompt of each picture."""
        ...

    def captioned(self, node: Mapping[str, Any]) -> bool:
        """True if each picture's caption is written next to it."""
        ...

    def network(self, parts: Parts[Train], node: Mapping[str, Any]) -> tuple[Any, ImageSampler]:
        """The network on the run's device, and its sampler."""
        ...

    def plan(self, parts: Parts[Train], node: Mapping[str, Any]) -> PlannedDrawing:
        """The network on the meta device, for memory plans."""
        ...


DRAWERS: Mapping[str, Drawer] = {
    drawer.target: drawer for drawer in (ClassDrawer(), TeacherDrawer())
}


def with_picture_folders(parts: Parts[Train]) -> Parts[Train]:
    """The parts with a folder filled in for each source of drawn pictures that names none.

    Pictures that are missing are drawn by rank 0. ConfigError where nothing may be written.
    """
    changes = {}
    for name, node in parts.config.data.sources.items():
        drawer = DRAWERS.get(node.train["_target_"])
        if drawer is None or node.train.get("root") is not None:
            continue
        needed = _limited_node(parts.config, node.train)
        folder = _ensure_drawn(drawer, parts, name, needed)
        drawn = {"root": str(folder), "count": needed["count"]}
        roots = {
            split: {**each, **drawn} if each["_target_"] == drawer.target else each
            for split, each in node.splits.items()
        }
        cache = f"{node.cache}_{folder.name}"  # another set has another cache
        changes[name] = {**node.plain, **roots, "cache": cache}
    if not changes:
        return parts
    plain = {name: node.plain for name, node in parts.config.data.sources.items()}
    data = parts.config.data.replace(sources={**plain, **changes})
    return Parts.from_config(parts.config.replace(data=data))


def planned_stages(config: Train) -> list[Stage]:
    """The memory stage of each set of pictures that is still to be drawn."""
    stages = []
    for node in config.data.sources.values():
        drawer = DRAWERS.get(node.train["_target_"])
        if drawer is None or node.train.get("root") is not None:
            continue
        needed = _limited_node(config, node.train)
        if not _is_drawn(drawer, config, needed):
            parts = Parts.built_from(
                release_settings.with_release_settings(without_unneeded_weights(config))
            )
            pictures = min(AT_ONCE, needed["count"])
            stage = drawer.plan(parts, needed).stage(f"draw the {drawer.kind}", pictures)
            stages.append(stage)
    return stages


def _limited_node(config: Train, node: Mapping[str, Any]) -> dict[str, Any]:
    """The node with its number of pictures cut to `data.limit`; a smaller set is another set."""
    limit = config.data.limit
    return {**node, "count": node["count"] if limit is None else min(node["count"], limit)}


def _is_drawn(drawer: Drawer, config: Train, node: Mapping[str, Any]) -> bool:
    """True for a complete set; its content is read only if its file exists."""
    sets = Path(config.paths.cache) / f"{drawer.kind}_pictures"
    if not any(sets.glob(f"*/{drawer.kind}.json")):
        return False
    parts = Parts.built_from(release_settings.with_release_settings(config))
    return _drawn_set(drawer, parts, node, drawer.content(parts, node)).is_complete()


def _drawn_set(
    drawer: Drawer, parts: Parts[Train], node: Mapping[str, Any], content: dict[str, Any]
) -> DrawnSet:
    folder = Path(parts.config.paths.cache) / f"{drawer.kind}_pictures"
    folder /= fingerprint.hash_json(content)[:16]
    return DrawnSet(folder, drawer.kind, node["count"], drawer.captioned(node))


def _ensure_drawn(
    drawer: Drawer, parts: Parts[Train], source: str, node: Mapping[str, Any]
) -> Path:
    """The folder of a source's pictures, after the missing ones are drawn."""
    content = drawer.content(parts, node)
    kind, count = drawer.kind, node["count"]
    pictures = _drawn_set(drawer, parts, node, content)
    folder = pictures.folder
    if pictures.is_complete():
        return folder
    if parts.config.preflight == ONLY:
        cure = f"start the run, which draws them; or data.{kind}_root=FOLDER"
        what = f"{count} pictures of the {kind} are not drawn yet"
        raise ConfigError(what, where=f"data.sources.{source}", cure=cure)
    if not is_rank_zero():
        while not pictures.is_complete():
            interruption.poll()
            time.sleep(POLL_SECONDS)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=lambda _: interruption.poll()):
        if not pictures.is_complete():
            _draw(drawer, parts, node, pictures)
            pictures.complete(content)
    return folder


def _draw(drawer: Drawer, parts: Parts[Train], node: Mapping[str, Any], pictures: DrawnSet) -> None:
    """Draw missing pictures in fixed batches, so that each is the same whichever are missing."""
    from tinyflux_pl.core import precision
    from tinyflux_pl.sampling.picture import save_png, to_picture

    prompts = drawer.prompts(node)
    network, sampler = drawer.network(parts, node)
    sampler = replace(sampler, max_batch=AT_ONCE)
    batches = [
        range(first, min(first + AT_ONCE, len(prompts)))
        for first in range(0, len(prompts), AT_ONCE)
    ]
    batches = [batch for batch in batches if not all(pictures.has(index) for index in batch)]
    for batch in progress.track(batches, f"draw the {drawer.kind}", len(batches), "turn"):
        interruption.poll()
        texts = [prompts[index] for index in batch]
        with precision.autocast(parts.precision, parts.device):
            images = sampler.images(
                network, texts, indices=list(batch), seed=node["seed"], device=parts.device
            )
        for index, text, image in zip(batch, texts, images, strict=True):
            if drawer.captioned(node):
                pictures.write_caption(index, text)
            written = {"prompt": text, "index": index}
            save_png(to_picture(image), pictures.picture(index), written)
    for part in (sampler.codec, sampler.text):
        part.free()
    sampler.text.to("cpu")
