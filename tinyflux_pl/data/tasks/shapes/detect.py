"""Detects flat objects on a plain background, and fits each with a drawn template.

Reads pixels alone. Ground: the median of each channel. Objects: connected parts that differ from
it. Shape, radius and sub-pixel centre: least squares against the drawing formula, blurred as the
picture was. Colour: the nearest of the palette in OKLab (Ottosson, 2020), taken from the fit, so
that edges do not dull it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyflux_pl.data.tasks.shapes.oklab import oklab
from tinyflux_pl.data.tasks.shapes.render import PALETTE, SHAPES, coverage, moments

BLUR = 0.7  # pixels, against noise; templates are blurred alike
# of RGB distance in [-1, 1] units: above noise, well below any colour of the palette
CONTRAST = 0.5
MIN_AREA = 4  # pixels: smaller parts are specks
MARGIN = 2  # pixels around a part that belong to its fit
WINDOW = 24  # pixels along the side of the square in which an object is fitted
RADIUS_STEPS = (0.88, 0.94, 1.0, 1.06, 1.12)
COLOUR_REACH = 0.17  # OKLab distance beyond which a colour has no name here
MAX_OBJECTS = 8  # parts of a picture; more than that is noise, which is not read
CHUNK = 128  # pictures at a time, which bounds memory


@dataclass(frozen=True)
class DetectedObjects:
    """N parts found in B pictures.

    `image`, `colour`, `shape` (N,) indices, colour -1 where none is near.

    `radius` (N,) and `centre` (N, 2) as (x, y), in pixels; `fit` (N,) the explained part of the
    contrast, at most 1; `lead` (N,) by how much of it the best shape beats the second; `count` (B,)
    parts in each picture.
    """

    image: Tensor
    colour: Tensor
    shape: Tensor
    radius: Tensor
    centre: Tensor
    fit: Tensor
    lead: Tensor
    count: Tensor

    def to_list(self) -> list[list[dict[str, float]]]:
        """For each picture, its parts as plain values."""
        columns = {
            f.name: getattr(self, f.name).tolist() for f in fields(self) if f.name != "count"
        }
        pictures: list[list[dict[str, float]]] = [[] for _ in range(len(self.count))]
        for row in zip(*columns.values(), strict=True):
            part = dict(zip(columns, row, strict=True))
            pictures[part["image"]].append(part)
        return pictures


def find_objects(images: Tensor, side: int) -> DetectedObjects:
    """Images (B, 3, H, H) in [-1, 1] -> every object in them.

    Objects are read at `side` pixels, to which other sizes are resized.
    """
    images = images.detach().float().clamp(-1.0, 1.0)
    if images.shape[-1] != side:
        images = F.interpolate(
            images, (side, side), mode="bilinear", antialias=True, align_corners=False
        )
    chunks = [_find(chunk) for chunk in images.split(CHUNK)]
    merged = {
        f.name: torch.cat([getattr(part, f.name) for part in chunks])
        for f in fields(DetectedObjects)
    }
    merged["image"] = torch.cat([part.image + i * CHUNK for i, part in enumerate(chunks)])
    return DetectedObjects(**merged)


def _find(images: Tensor) -> DetectedObjects:
    batch, _, height, width = images.shape
    ground = images.flatten(2).median(-1).values
    contrast = _blurred(images - ground[:, :, None, None])
    labels = _labels(contrast.square().sum(1) > CONTRAST**2)
    picture, root, area = _parts(labels)
    large = area >= MIN_AREA
    count = torch.bincount(picture[large], minlength=batch)
    selected = large & (count[picture] <= MAX_OBJECTS)
    picture = picture[selected]
    root = root[selected]

    part_pixels = (labels[picture] == root[:, None, None]).float()
    other_parts = ((labels[picture] > 0) & (part_pixels == 0)).float()
    row_mass = part_pixels.sum(2)
    column_mass = part_pixels.sum(1)
    mass = row_mass.sum(1)
    line_y = torch.arange(height, device=images.device) + 0.5
    line_x = torch.arange(width, device=images.device) + 0.5
    middle_x = (column_mass * line_x).sum(1) / mass
    middle_y = (row_mass * line_y).sum(1) / mass

    # Windows of WINDOW pixels around each part, with the picture's own coordinates.
    left = middle_x.round().long() - WINDOW // 2
    top = middle_y.round().long() - WINDOW // 2
    offsets = torch.arange(WINDOW, device=images.device)
    columns = left[:, None] + offsets
    rows = top[:, None] + offsets
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    index = (
        rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    ).flatten(1)

    near = F.max_pool2d(part_pixels[:, None], 2 * MARGIN + 1, 1, MARGIN)[:, 0] * (1.0 - other_parts)
    weight = near.flatten(1).gather(1, index).view(-1, WINDOW, WINDOW) * inside
    window = (
        contrast[picture]
        .flatten(2)
        .gather(2, index[:, None].expand(-1, 3, -1))
        .view(-1, 3, WINDOW, WINDOW)
    )
    window = window * weight[:, None]
    return _fit(window, weight, columns + 0.5, rows + 0.5, ground[picture], picture, count)


def _fit(
    window: Tensor,
    weight: Tensor,
    x: Tensor,
    y: Tensor,
    ground: Tensor,
    picture: Tensor,
    count: Tensor,
) -> DetectedObjects:
    """Moments give centre and radius for each shape; least squares around them chooses."""
    strength = window.square().sum(1).sqrt()
    core = (strength > 0.75 * strength.amax((1, 2), keepdim=True)).float()
    colour = (window * core[:, None]).sum((2, 3)) / core.sum((1, 2))[:, None].clamp_min(1.0)
    cover = (window * colour[:, :, None, None]).sum(1) / colour.square().sum(1)[
        :, None, None
    ].clamp_min(1e-6)
    mass = cover.sum((1, 2)).clamp_min(1e-6)
    mean_x = (cover.sum(1) * x).sum(1) / mass
    mean_y = (cover.sum(2) * y).sum(1) / mass
    energy = window.square().sum((1, 2, 3)).clamp_min(1e-6)

    def explained(shape: str, radius: Tensor, cx: Tensor, cy: Tensor) -> tuple[Tensor, Tensor]:
        """Part of the window's energy that k templates, sharp then soft, explain (N, 2k).

        Their colours (N, 2k, 3).
        """
        dx = x[:, None, None, :] - cx[:, :, None, None]
        dy = y[:, None, :, None] - cy[:, :, None, None]
        sharp = _blurred(coverage(shape, dx, dy, radius[:, :, None, None]))
        template = torch.cat([sharp, _blurred(sharp)], 1) * weight[:, None]
        products = torch.einsum("nkhw,nchw->nkc", template, window)
        norm = template.square().sum((2, 3)).clamp_min(1e-6)
        return products.square().sum(-1) / norm / energy[:, None], products / norm[..., None]

    steps = torch.tensor(RADIUS_STEPS, device=window.device)
    fits, radii, centres, colours = [], [], [], []
    for shape, (area, below) in zip(SHAPES, moments(), strict=True):
        radius = (mass / area).sqrt()[:, None] * steps
        cx = mean_x[:, None].expand_as(radius)
        cy = mean_y[:, None] - below * radius
        score, shade = explained(shape, radius, cx, cy)
        best = score.argmax(1, keepdim=True)
        fits.append(score.gather(1, best)[:, 0])
        step = best % len(steps)
        radii.append(radius.gather(1, step)[:, 0])
        centres.append(torch.stack([mean_x, cy.gather(1, step)[:, 0]], 1))
        colours.append(shade.gather(1, best[..., None].expand(-1, -1, 3))[:, 0])
    score = torch.stack(fits, 1)
    top, shape_index = score.topk(2, dim=1)
    best = shape_index[:, 0]
    each = torch.arange(len(score), device=window.device)
    shade = torch.stack(colours, 1)[each, best] + ground
    return DetectedObjects(
        image=picture,
        colour=_nearest_colour(shade),
        shape=best,
        radius=torch.stack(radii, 1)[each, best],
        centre=torch.stack(centres, 1)[each, best],
        fit=top[:, 0],
        lead=top[:, 0] - top[:, 1],
        count=count,
    )


def _blurred(images: Tensor) -> Tensor:
    """Gaussian blur of BLUR pixels over (..., H, H), renormalised at the edges."""
    line = torch.arange(images.shape[-1], device=images.device)
    matrix = torch.exp(-0.5 * ((line[:, None] - line) / BLUR) ** 2)
    matrix = matrix / matrix.sum(1, keepdim=True)
    return matrix @ images @ matrix.T


def _labels(mask: Tensor) -> Tensor:
    """Connected parts (8 neighbours) of (B, H, W) by their largest pixel index; 0 outside."""
    index = torch.arange(1, mask[0].numel() + 1, device=mask.device, dtype=torch.float32).view(
        mask.shape[1:]
    )
    labels = index * mask
    while True:
        spread = F.max_pool2d(labels[:, None], 3, 1, 1)[:, 0] * mask
        if torch.equal(spread, labels):
            return labels
        labels = spread


def _parts(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Picture index, label and area in pixels of every part."""
    index = torch.arange(1, labels[0].numel() + 1, device=labels.device, dtype=torch.float32)
    flat = labels.flatten(1)
    areas = torch.zeros(len(flat), flat.shape[1] + 1, device=labels.device)
    areas.scatter_add_(1, flat.long(), torch.ones_like(flat))
    picture, position = (flat == index).nonzero(as_tuple=True)
    return picture, index[position], areas[picture, position + 1]


def _nearest_colour(rgb: Tensor) -> Tensor:
    """Index of the nearest colour of the palette in OKLab, -1 beyond COLOUR_REACH.

    Rgb (N, 3) in [-1, 1].
    """
    palette = torch.tensor(list(PALETTE.values()), device=rgb.device) / 127.5 - 1.0
    distance, index = torch.cdist(oklab(rgb), oklab(palette)).min(1)
    return torch.where(distance <= COLOUR_REACH, index, -1)
