"""FluxFlow's reference networks equal the published ones, outputs and gradients."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tinyflux_pl.diffusion import losses
from tinyflux_pl.nets.bezier import BezierActivation, TrainableBezier
from tinyflux_pl.nets.discriminator import PatchDiscriminator
from tinyflux_pl.nets.fluxflow.coordinates import sinusoids_2d
from tinyflux_pl.nets.fluxflow.reference.compressor import FluxCompressor
from tinyflux_pl.nets.fluxflow.reference.expander import FluxExpander
from tinyflux_pl.nets.fluxflow.reference.processor import FluxFlowProcessor
from tinyflux_pl.nets.fluxflow.reference.text_head import TextHead
from tinyflux_pl.nets.fluxflow.spade import Spade
from tinyflux_pl.nets.fluxflow.token_context import ContextAttentionMixer, GatedContextInjection

DATA = Path(__file__).parent / "data"
IGNORED = {"use_attention", "attn_dropout", "use_gradient_checkpointing"}
PRE = (None, "sigmoid", "tanh", "silu")


def part(tensors, prefix):
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


class Case:
    """One recorded case: settings, weights, inputs and outputs."""

    def __init__(self, name):
        with safe_open(DATA / f"fluxflow_{name}.safetensors", "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            settings = json.loads(file.metadata().get("config", "{}"))
        self.settings = {k: v for k, v in settings.items() if k not in IGNORED}
        self.weights, self.inputs = part(tensors, "model."), part(tensors, "input.")
        self.outputs = part(tensors, "output.")

    def load(self, network, prefix=""):
        network.load_state_dict(part(self.weights, prefix), strict=True)
        return network.eval()

    def compare_gradients(self, network, prefix="grad."):
        parameters = dict(network.named_parameters())
        expected = part(self.outputs, prefix)
        assert expected
        for key, value in expected.items():
            close(parameters[key].grad, value)


def close(actual, expected, tolerance=1e-4):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max().clamp_min(1e-12)


@pytest.fixture(scope="module")
def bezier():
    return Case("bezier")


@pytest.mark.parametrize("t_pre", PRE)
@pytest.mark.parametrize("p_pre", PRE)
@pytest.mark.parametrize("name", ["x2", "x3", "x4"])
def test_the_activation_with_each_pre_activation(bezier, t_pre, p_pre, name):
    x = bezier.inputs[name].clone().requires_grad_()
    out = BezierActivation(t_pre, p_pre)(x)
    close(out, bezier.outputs[f"{t_pre}__{p_pre}.{name}"])
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    close(x.grad, bezier.outputs[f"{t_pre}__{p_pre}.{name}.grad"])


@pytest.mark.parametrize("start", ["init", "rnd"])
@pytest.mark.parametrize(
    "kind", ["default_2d", "default_chw11", "logvar_channel", "mu_channel", "rgb_channel"]
)
def test_the_learned_curve_and_the_gradients_of_its_points(bezier, kind, start):
    name = f"tb_{kind}_{start}"
    shape = bezier.weights[f"{name}.p0"].shape
    curve = bezier.load(TrainableBezier(tuple(shape), channels="channel" in kind), f"{name}.")
    x = bezier.inputs[name].clone().requires_grad_()
    out = curve(x)
    close(out, bezier.outputs[name])
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    close(x.grad, bezier.outputs[f"{name}.grad_x"])
    for point in ("p0", "p1", "p2", "p3"):
        close(getattr(curve, point).grad, bezier.outputs[f"{name}.grad.{point}"])


def test_the_compressor():
    case = Case("compressor_small")
    network = case.load(FluxCompressor(**case.settings))
    packed, mean, log_variance = network(case.inputs["img"], case.inputs["eps"])
    close(packed, case.outputs["packed"])
    close(mean, case.outputs["mu"])
    close(log_variance, case.outputs["logvar"])
    close(sinusoids_2d(4, 4, 16), case.outputs["pe_fixed"])
    loss = packed.square().mean() + mean.mean() + log_variance.mean()
    close(loss, case.outputs["loss"])
    loss.backward()
    case.compare_gradients(network)


def test_the_expander_with_and_without_spade():
    case = Case("expander_small")
    case.settings.pop("ctx_tokens")
    network = case.load(FluxExpander(**case.settings))
    close(network(case.inputs["packed"], use_context=False), case.outputs["rgb_noctx"])
    picture = network(case.inputs["packed"])
    close(picture, case.outputs["rgb_ctx"])
    picture.square().mean().backward()
    case.compare_gradients(network)


@pytest.fixture(scope="module")
def processor():
    case = Case("processor_small")
    return case, case.load(FluxFlowProcessor(**case.settings))


@pytest.mark.parametrize(
    ("output", "packed", "t"),
    [
        ("float", "packed", "t_float"),
        ("int", "packed", "t_int"),
        ("float_mixed", "packed_mixed", "t_float"),
        ("float_short", "packed_short", "t_float"),
    ],
)
def test_the_processor_for_each_kind_of_time_and_size(processor, output, packed, t):
    case, network = processor
    prediction = network(case.inputs[packed], case.inputs["text"], case.inputs[t])
    close(prediction, case.outputs[output])


def test_the_processor_with_one_sample(processor):
    case, network = processor
    first = (case.inputs[name][:1] for name in ("packed", "text", "t_float"))
    close(network(*first), case.outputs["float_b1"])


def test_the_gradients_of_the_processor(processor):
    case, network = processor
    network.zero_grad()
    out = network(case.inputs["packed"], case.inputs["text"], case.inputs["t_float"])
    loss = out[:, :-1].square().mean()
    close(loss, case.outputs["loss"])
    loss.backward()
    case.compare_gradients(network)


def test_the_discriminator_with_its_double_backward_penalty():
    case = Case("discriminator_r1_small")
    network = case.load(PatchDiscriminator(**case.settings))
    real, fake = case.inputs["img10"].clone().requires_grad_(), case.inputs["fake10"]
    logits = network(real, case.inputs["ctx"])
    close(logits, case.outputs["eval_logits"])
    fake_logits = network(fake, case.inputs["ctx"])
    close(fake_logits, case.outputs["fake_logits"])
    real_mean, fake_mean = (losses.sample_mean(each) for each in (logits, fake_logits))
    hinge = losses.hinge_critic(real_mean, fake_mean)
    close(hinge, case.outputs["hinge"])
    penalty = losses.r1(real_mean, real).mean()
    close(penalty, case.outputs["r1"])
    total = hinge + 2.5 * penalty
    close(total, case.outputs["d_total"])
    total.backward()
    case.compare_gradients(network, "grad_total.")


def test_the_text_head():
    case = Case("text_head_small")
    network = case.load(TextHead(24, 16, 12))
    close(network(case.inputs["last_hidden_state"]), case.outputs["embedding"])


def test_spade_context_mixer_and_gated_injection():
    case = Case("losses")
    spade = case.load(Spade(16, 8), "spade.")
    close(spade(case.inputs["spade_x"], case.inputs["spade_ctx"]), case.outputs["spade"])
    mixer = case.load(ContextAttentionMixer(32, 4), "ctx_mixer.")
    tokens, pooled = mixer(case.inputs["ctx_tokens"])
    close(tokens, case.outputs["ctx_tokens"])
    close(pooled, case.outputs["ctx_pooled"])
    gated = case.load(GatedContextInjection(32), "gated.")
    injected = gated(case.inputs["ctx_tokens"], case.inputs["gated_ctx"])
    close(injected, case.outputs["gated"])


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (lambda: FluxCompressor(), 12_580_553),
        (lambda: FluxCompressor(attn_layers=2), 12_051_401),
        (lambda: FluxFlowProcessor(d_model=128), 5_373_824),
        (lambda: FluxFlowProcessor(d_model=128, n_layers=12), 6_068_864),
        (lambda: FluxFlowProcessor(), 80_277_632),
        (lambda: FluxExpander(), 94_073_551),
        (lambda: PatchDiscriminator(ctx_dim=128), 45_105_473),
        (lambda: PatchDiscriminator(), 43_923_777),
        (lambda: TextHead(), 70_973_440 - 66_362_880),
        (lambda: TextHead(out=768), 70_314_240 - 66_362_880),
    ],
)
def test_parameters_of_the_published_sizes(network, expected):
    with torch.device("meta"):
        assert count(network()) == expected
