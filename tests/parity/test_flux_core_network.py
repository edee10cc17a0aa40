"""Flux equals the public original: blocks, predictions, gradients, schedule, times, sampler."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tinyflux_pl.diffusion.grids import grid
from tinyflux_pl.diffusion.paths import LinearPath
from tinyflux_pl.diffusion.shifts import resolution_shift
from tinyflux_pl.diffusion.solvers import euler
from tinyflux_pl.diffusion.timesteps import Beta
from tinyflux_pl.nets.flux import Flux, FluxParams, embedded

DATA = Path(__file__).parent / "data"


def tensors(name):
    with safe_open(DATA / f"flux_core_{name}.safetensors", "pt") as file:
        content = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return content, file.metadata()


class Case:
    """The recorded network, loaded strictly."""

    def __init__(self):
        content, metadata = tensors("small")
        self.inputs = {
            k.removeprefix("input."): v for k, v in content.items() if k.startswith("input.")
        }
        self.recorded = {
            k.removeprefix("output."): v for k, v in content.items() if k.startswith("output.")
        }
        weights = {
            k.removeprefix("model."): v for k, v in content.items() if k.startswith("model.")
        }
        self.net = Flux(FluxParams(**json.loads(metadata["config"])))
        self.net.load_state_dict(weights, strict=True)


@pytest.fixture(scope="module")
def case():
    return Case()


@pytest.fixture(scope="module")
def schedule():
    return tensors("schedule")[0]


def close(actual, expected, tolerance=1e-5):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@torch.no_grad()
def test_predictions_equal_the_original(case):
    close(case.net(**case.inputs), case.recorded["pred"])
    close(case.net(**{**case.inputs, "y": None}), case.recorded["pred_y_none"])


@torch.no_grad()
def test_positional_arguments_and_integer_ids_give_equal_predictions(case):
    order = ("img", "img_ids", "txt", "txt_ids", "timesteps", "y")
    integer_inputs = {k: v.long() if k.endswith("_ids") else v for k, v in case.inputs.items()}
    close(case.net(*(integer_inputs[name] for name in order)), case.recorded["pred"])


@torch.no_grad()
def test_intermediate_activations_equal_the_original(case):
    seen = {}
    net = case.net
    blocks = [("double", i, b) for i, b in enumerate(net.double_blocks)]
    blocks += [("single", i, b) for i, b in enumerate(net.single_blocks)]
    hooks = [
        block.register_forward_hook(
            lambda m, i, out, key=f"{kind}{index}": seen.__setitem__(key, out)
        )
        for kind, index, block in blocks
    ]
    hooks.append(
        net.time_in.register_forward_hook(lambda m, i, out: seen.__setitem__("time_in_out", out))
    )
    hooks.append(
        net.pe_embedder.register_forward_hook(lambda m, i, out: seen.__setitem__("pe", out))
    )
    net(**case.inputs)
    for hook in hooks:
        hook.remove()
    for i in range(2):
        close(seen[f"double{i}"][0], case.recorded[f"double{i}_img"])
        close(seen[f"double{i}"][1], case.recorded[f"double{i}_txt"])
        close(seen[f"single{i}"], case.recorded[f"single{i}"])
    close(seen["time_in_out"], case.recorded["time_in_out"])
    # Angles reach 1000, and exp differs by a unit in the last place between processors: half of
    # one there is 6e-5 of a radian. The record itself lies 3.5e-5 from the value in fp64.
    close(embedded(case.inputs["timesteps"]), case.recorded["timestep_embedding"], 1000 * 2**-24)
    cos, sin = seen["pe"].unbind(-1)
    matrices = torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)
    close(matrices[:, None], case.recorded["pe"])


def test_gradients_equal_the_original(case):
    img = case.inputs["img"].clone().requires_grad_()
    case.net.zero_grad()
    loss = case.net(**{**case.inputs, "img": img}).square().mean()
    loss.backward()
    close(loss.detach(), case.recorded["loss_mean_sq"])
    close(img.grad, case.recorded["grad_img"])
    parameters = dict(case.net.named_parameters())
    recorded_gradients = {
        k.removeprefix("grad."): v for k, v in case.recorded.items() if k.startswith("grad.")
    }
    assert len(recorded_gradients) == 3
    for name, expected in recorded_gradients.items():
        close(parameters[name].grad, expected)


@pytest.mark.parametrize(("steps", "tokens"), [(24, 1024), (28, 4096), (4, 24), (8, 256)])
def test_shifted_schedules_equal_the_original(schedule, steps, tokens):
    path = LinearPath(noise_at=1)
    close(
        grid(steps, path, resolution_shift(tokens)),
        schedule[f"output.schedule_n{steps}_l{tokens}"],
        1e-6,
    )
    if tokens == 1024:
        close(grid(steps, path), schedule["output.schedule_n24_l1024_noshift"], 1e-6)


def test_beta_times_equal_the_original(schedule):
    torch.manual_seed(0)
    raw = torch.distributions.Beta(2.5, 2.0).sample((16,))
    assert torch.equal(
        Beta().from_beta(raw, LinearPath(noise_at=1)), schedule["output.beta_t_seed0_b16"]
    )


def test_euler_trajectory_equals_the_original(schedule):
    path, data, noise = (
        LinearPath(noise_at=1),
        schedule["input.euler_z0"],
        schedule["input.euler_z1"],
    )
    target_mean, losses = 0.1 * schedule["input.euler_y"].mean(1, keepdim=True), []

    def field(x, t):
        velocity = torch.tanh(x) * t[:, None, None] + target_mean
        losses.append((velocity - path.velocity(data, noise, t)).square().mean())
        return velocity

    times = grid(6, path, resolution_shift(24))
    close(euler(field, noise, times, path, lambda *_: None), schedule["output.euler_zt"])
    recorded = schedule["output.euler_losses"]  # columns: time, error
    close(times[:6], recorded[:, 0])
    close(torch.stack(losses), recorded[:, 1])
