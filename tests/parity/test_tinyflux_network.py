"""TinyFluxDeep equals the published network: v4.2 (two kinds), v4.1 with guidance, v3."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from tinyflux_pl.core.errors import CheckpointMismatch
from tinyflux_pl.denoisers.tinyflux import load_reference, to_reference_keys

DATA = Path(__file__).parent / "data"
CASES = ("full", "luneonly", "legacy_v41_guidance", "legacy_v3")
TEACHERS = ("lune_features", "sol_stats", "sol_spatial", "expert_features")


class Case:
    """One recorded case, its network loaded."""

    def __init__(self, name):
        with safe_open(DATA / f"tinyflux_{name}.safetensors", "pt") as file:
            recorded = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.config = json.loads(file.metadata()["config"])
        self.weights, self.inputs, self.grads, self.recorded = {}, {}, {}, {}
        kinds = {"model.": self.weights, "input.": self.inputs, "grad.": self.grads}
        for key, value in recorded.items():
            for prefix, part in kinds.items():
                if key.startswith(prefix):
                    part[key.removeprefix(prefix)] = value
                    break
            else:
                self.recorded[key] = value
        self.target = self.inputs.pop("target")
        self.net = load_reference(self.config, self.weights)

    def run(self, teachers=False, txt_ids=False):
        left_out = {*(() if teachers else TEACHERS), *(() if txt_ids else ("txt_ids",))}
        inputs = {k: v for k, v in self.inputs.items() if k not in left_out}
        return self.net(**inputs, return_expert_pred=True)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return Case(request.param)


def close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("no_experts", {}),
        ("no_experts_txt_ids", {"txt_ids": True}),
        ("with_experts", {"teachers": True}),
    ],
)
def test_outputs_and_head_predictions_equal_the_original(case, name, how):
    out, info = case.run(**how)
    close(out, case.recorded[f"output.{name}"])
    for key, expected in case.recorded.items():
        if key.startswith(f"output.{name}.info."):
            expert, what = key.split(".")[-2:]
            close(info[expert][what], expected)
        elif key == f"output.{name}.expert_pred":
            close(info["expert_pred"], expected)
    if info["lune"] is not None:
        assert info["expert_used"] == ("real" if how.get("teachers") else "predicted")


@torch.no_grad()
def test_intermediate_activations_equal_the_original(case):
    seen = {}

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    net = case.net
    hooks = [
        net.time_in.register_forward_hook(keep("time_emb")),
        net.vector_in.register_forward_hook(keep("clip_vec")),
    ]
    for name, index in (("0", 0), ("last", len(net.double_blocks) - 1)):
        hooks.append(net.double_blocks[index].register_forward_hook(keep(f"double_blocks.{name}")))
    hooks.append(net.single_blocks[0].register_forward_hook(keep("single_blocks.0")))
    hooks.append(
        net.single_blocks[0].register_forward_pre_hook(
            lambda m, i: seen.__setitem__("activated", i[1])
        )
    )
    try:
        case.run(teachers=True)
        close(seen["activated"], F.silu(case.recorded["intermediate.with_experts.vec"]))
        case.run()
    finally:
        for hook in hooks:
            hook.remove()
    expected = {
        k.removeprefix("intermediate.no_experts."): v
        for k, v in case.recorded.items()
        if "no_experts." in k
    }
    close(seen["activated"], F.silu(expected["vec"]))
    for name in ("time_emb", "clip_vec"):
        close(seen[name], expected[name])
    for name in ("0", "last"):
        for stream, activation in zip(("txt", "img"), seen[f"double_blocks.{name}"], strict=True):
            close(activation, expected[f"double_blocks.{name}.{stream}"])
    length = case.inputs["encoder_hidden_states"].shape[1]
    close(seen["single_blocks.0"][:, :length], expected["single_blocks.0.txt"])
    close(seen["single_blocks.0"][:, length:], expected["single_blocks.0.img"])


def training_loss(case):
    """MSE a sample x min-SNR(5) + 0.1 Lune cosine + 0.05 (Sol statistics + map), teachers shown."""
    out, info = case.run(teachers=True)
    t = case.inputs["timestep"]
    snr = (t / (1 - t).clamp(min=1e-5)) ** 2
    loss = (
        (out - case.target).square().mean((1, 2)) * snr.clamp(max=5) / snr.clamp(min=1e-5)
    ).mean()
    loss = (
        loss
        + 0.1 * (1 - F.cosine_similarity(info["lune"]["pred"], case.inputs["lune_features"])).mean()
    )
    if info["sol"] is not None:
        loss = loss + 0.05 * F.mse_loss(info["sol"]["stats_pred"], case.inputs["sol_stats"])
        loss = loss + 0.05 * F.mse_loss(info["sol"]["spatial_pred"], case.inputs["sol_spatial"])
    return loss


def test_training_loss_and_gradients_equal_the_original(case):
    if "output.train_loss" not in case.recorded:
        assert case.net.config.use_t5_vec is False  # v3 was recorded without gradients
        return
    case.net.zero_grad()
    loss = training_loss(case)
    loss.backward()
    close(loss.detach(), case.recorded["output.train_loss"])
    gradients = {name: p.grad for name, p in case.net.named_parameters() if p.grad is not None}
    largest = max(g.abs().max() for g in case.grads.values())
    for name, expected in case.grads.items():
        assert (gradients[name] - expected).abs().max() <= 1e-5 * largest, name
    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    close(norm, case.recorded["output.grad_norm"])
    unused = {name for name, _ in case.net.named_parameters()} - set(gradients)
    assert unused <= {"sol_prior.spatial_to_qk_scale.weight", "sol_prior.spatial_to_qk_scale.bias"}


@torch.no_grad()
def test_exported_weights_reload_with_equal_outputs(case):
    exported = to_reference_keys(case.net)
    assert not any(key.startswith("expert_predictor") for key in exported)
    again = load_reference(case.net.config.to_dict(), exported)
    inputs = {k: v for k, v in case.inputs.items() if k not in TEACHERS}
    assert torch.equal(again(**inputs), case.net(**inputs))


def test_v42_export_round_trips_keys_and_values():
    case = Case("full")
    exported = to_reference_keys(case.net)
    assert exported.keys() == case.weights.keys()
    assert all(torch.equal(exported[key], case.weights[key]) for key in exported)


@torch.no_grad()
def test_the_compile_prefix_is_removed_and_stored_frequencies_are_kept():
    case = Case("full")
    weights = {f"_orig_mod.{key}": value.clone() for key, value in case.weights.items()}
    rounded = case.weights["rope.freqs_1"].bfloat16().float()
    assert not torch.equal(rounded, case.weights["rope.freqs_1"])
    weights["_orig_mod.rope.freqs_1"] = rounded
    net = load_reference(case.config, weights)
    inputs = {k: v for k, v in case.inputs.items() if k not in TEACHERS}
    assert torch.equal(net.rope.freqs_1, rounded)
    assert not torch.allclose(net(**inputs), case.net(**inputs), atol=1e-4)
    assert net.to(torch.bfloat16).rope.freqs_1.dtype == torch.float32
    assert torch.equal(net.rope.freqs_1, rounded)


@pytest.mark.parametrize("use_t5_vec", [True, False])
@pytest.mark.parametrize("experts", [(), ("use_sol_prior",), ("use_lune_expert", "use_sol_prior")])
@torch.no_grad()
def test_every_combination_of_optional_parts_loads(experts, use_t5_vec):
    case = Case("full")
    off = {"use_lune_expert": False, "use_sol_prior": False, "use_t5_vec": use_t5_vec}
    config = {**case.config, **off, **dict.fromkeys(experts, True), "a_key_of_no_version": 1}
    absent = [] if use_t5_vec else ["t5_pool.", "text_balance"]
    absent += [] if "use_lune_expert" in experts else ["lune_predictor."]
    absent += [] if "use_sol_prior" in experts else ["sol_prior.", "spatial_to_mod"]
    weights = {k: v for k, v in case.weights.items() if not any(part in k for part in absent)}
    net = load_reference(config, weights)
    inputs = {k: v for k, v in case.inputs.items() if k not in TEACHERS}
    out, info = net(**inputs, return_expert_pred=True)
    assert out.isfinite().all()
    assert (info["sol"] is None) == ("use_sol_prior" not in experts)
    assert (info["lune"] is None) == ("use_lune_expert" not in experts)


def test_mismatched_weights_are_named_by_kind():
    case = Case("luneonly")
    weights = dict(case.weights)
    del weights["img_in.weight"]
    weights["surplus"] = torch.zeros(1)
    weights["txt_in.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointMismatch) as error:
        load_reference(case.config, weights)
    for part in (
        "1 missing: img_in.weight",
        "1 unexpected: surplus",
        "1 of another shape: txt_in.bias (3,) for (64,)",
    ):
        assert part in error.value.what
