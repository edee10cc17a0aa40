"""Changes of a run, and the parts of a cache that each makes stale."""

import json

from PIL import Image

from tests.faults import caching
from tests.faults.conftest import FULL
from tinyflux_pl.core import files
from tinyflux_pl.data.records.content_split import held_out

FRACTION = 0.2


ALL, NONE = "all", 0


EXPERTS = {"train/lune": ALL, "train/sol": ALL}


ENCODED = {"train/encodings": ALL, "validation/encodings": ALL}


ONE = {"train/encodings": 1, "train/lune": 1, "train/sol": 1}


def trained_on(root):
    """The number of a picture that is in the training split."""
    return int(caching.store(root).captions([0])[0].split()[-1])


def edit_image(root):
    number = trained_on(root)
    hashes = {p: files.sha256(p) for p in (root / "data").glob("*.png")}
    before = held_out(hashes.values(), FRACTION)
    # the split is drawn from the content: another picture that changes no split
    for seed in range(1000, 1100):
        file = caching.draw(root, number, seed)
        if held_out({**hashes, file: files.sha256(file)}.values(), FRACTION) == before:
            return
    raise AssertionError("no picture stays in its split")


def add_masks(root):
    """Add a mask for every image, which weights the loss."""
    for file in sorted((root / "data").glob("[0-9][0-9][0-9].png")):
        with Image.open(file) as picture:
            Image.new("L", picture.size, 255).save(file.with_suffix(".mask.png"))


def edit_caption(root):
    (root / "data" / f"{trained_on(root):03d}.txt").write_text("a red square")


def edit_tokenizer(root):
    """Two words change places; weights and configuration stay."""
    file = root / "t5" / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    words["red"], words["circle"] = words["circle"], words["red"]
    file.write_text(json.dumps(content))


def configured(*keys, **values):
    def edit(root):
        file = root.joinpath(*keys, "config.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return edit


edit_scale = configured("flux1", "vae", scaling_factor=0.5, shift_factor=0.2)


def altered(*parts):
    return lambda root: caching.alter(root.joinpath(*parts))


# name: what is done to the files, what to the command line, what the error says, which entries are
# affected
MUTATIONS = {
    "image": (
        edit_image,
        (),
        r"records\.content: .*new or changed: 1 of 4 samples \(\d+\.png\)",
        ONE,
    ),
    "caption": (edit_caption, (), r"records\.content: .*new or changed: 1 of 4 samples", ONE),
    "codec weights": (
        altered("flux1", "vae", "diffusion_pytorch_model.safetensors"),
        (),
        r"codec\.weights",
        ENCODED,
    ),
    "text weights": (
        altered("t5", "model.safetensors"),
        (),
        r"text\.t5\.model\.safetensors",
        ENCODED,
    ),
    "Lune's weights": (
        altered("teachers", "lune.safetensors"),
        (),
        r"'lune'.*teacher\.weights",
        {"train/lune": ALL},
    ),
    "Sol's weights": (
        altered("teachers", "sol.safetensors"),
        (),
        r"'sol'.*teacher\.weights",
        {"train/sol": ALL},
    ),
    "tokenizer": (edit_tokenizer, (), r"text\.t5\.tokenizer\.json", ENCODED),
    "resolution": (
        None,
        ("data.image_size=48",),
        r"records\.size: cache 32, run 48",
        ENCODED | EXPERTS,
    ),
    "crop": (
        None,
        ("data.fit_mode=pad",),
        r'records\.fit: cache "crop", run "pad"',
        ENCODED | EXPERTS,
    ),
    "dtype": (
        None,
        ("data.store_dtype=float32",),
        'dtype: cache "float16", run "float32"',
        ENCODED | EXPERTS,
    ),
    "scale and shift": (edit_scale, (), r"codec\.scale: .*codec\.shift: ", ENCODED),
    "codec config": (
        configured("flux1", "vae", act_fn="relu"),
        (),
        r"codec\.act_fn: .*relu",
        ENCODED,
    ),
    "text config": (
        configured("t5", layer_norm_epsilon=1e-3),
        (),
        r"text\.config\.t5\.layer_norm_epsilon: .*0\.001",
        ENCODED,
    ),
    "buckets": (None, ("experts.lune.t_buckets=[0.2,0.8]",), r"t_buckets", {"train/lune": ALL}),
    "clock": (
        None,
        ("experts.lune.clock=literal",),
        'clock: cache "matched", run "literal"',
        {"train/lune": ALL},
    ),
    "precision": (
        None,
        ("teacher.precision=bf16-mixed",),
        'precision: cache "32-true", run "bf16-mixed"',
        EXPERTS,
    ),
    "codec's dtype": (
        None,
        ("codec.dtype=bfloat16",),
        'codec.dtype: cache "float32", run "bfloat16"',
        ENCODED,
    ),
    "text's dtype": (
        None,
        ("text.dtype=bfloat16",),
        'text.dtype: cache "float32", run "bfloat16"',
        ENCODED,
    ),
    "text's length": (None, ("text.length=12",), "text.length: cache 16, run 12", ENCODED),
    "map size": (None, ("experts.sol.size=4",), r"'sol'.*size: cache 8, run 4", {"train/sol": ALL}),
    "masks": (
        add_masks,
        (),
        r"records\.content: .*new or changed: 4 of 4 samples",
        ENCODED | EXPERTS,
    ),
    "seed": (None, ("teacher.seed=1",), r"'lune'.*seed: cache 0, run 1", EXPERTS),
}


REBUILT = tuple(MUTATIONS) if FULL else ("caption", "Sol's weights")
