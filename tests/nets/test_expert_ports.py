"""Ports by kind: how the teacher's features enter, and that the head replaces them."""

import pytest
import torch

from tinyflux_pl.core.errors import ConfigError
from tinyflux_pl.nets.expert_ports import ExpertPorts
from tinyflux_pl.nets.position_ids import grid_ids
from tinyflux_pl.nets.tinyflux import TinyFluxDeep
from tinyflux_pl.nets.tinyflux_config import TinyFluxConfig

PORTS = {"style": {"kind": "vector", "width": 5}, "layout": {"kind": "map", "width": 4}}
TEACHERS = {"style": torch.randn(2, 5), "layout": torch.randn(2, 4, 4)}


def ports():
    torch.manual_seed(0)
    module = ExpertPorts(PORTS, 6 + 3, 6).eval()
    torch.nn.init.normal_(module["layout"].output_proj.weight)
    return module


def answer(module, teachers, masks):
    torch.manual_seed(1)
    return module(torch.randn(2, 6), torch.randn(2, 3), grid_ids(2, 3), teachers, masks)


def test_port_terms_have_the_shapes_of_vector_and_image_tokens():
    vector, tokens, predictions = answer(ports(), TEACHERS, {})
    assert vector.shape == (2, 6)
    assert tokens.shape == (2, 6, 6)
    assert {name: p.shape[1:] for name, p in predictions.items()} == {
        "style": (5,),
        "layout": (4, 4),
    }


@pytest.mark.parametrize("index", [0, 1], ids=["vector", "tokens"])
def test_the_mask_selects_teacher_or_head_per_sample(index):
    module = ports()
    first_only = torch.tensor([True, False])
    mixed = answer(module, TEACHERS, dict.fromkeys(PORTS, first_only))[index]
    taught = answer(module, TEACHERS, {})[index]
    alone = answer(module, {}, {})[index]
    assert torch.equal(mixed[0], taught[0])
    assert torch.equal(mixed[1], alone[1])
    assert not torch.allclose(taught[1], alone[1])


def test_head_predictions_do_not_depend_on_the_teacher():
    module = ports()
    with_teacher = answer(module, TEACHERS, {})[2]
    without = answer(module, {}, {})[2]
    assert all(torch.equal(with_teacher[name], without[name]) for name in PORTS)


@pytest.mark.parametrize(
    "wrong", [{"kind": "picture", "width": 3}, {"kind": "map", "width": 0}], ids=["kind", "width"]
)
def test_an_invalid_port_is_refused(wrong):
    with pytest.raises(ConfigError):
        ExpertPorts({"x": wrong}, 9, 6)


def config(**changes):
    sizes = {"hidden_size": 16, "num_attention_heads": 1, "attention_head_dim": 16}
    sizes |= {"axes_dims_rope": (4, 6, 6), "num_double_layers": 1, "num_single_layers": 1}
    sizes |= {"joint_attention_dim": 8, "pooled_projection_dim": 8, "in_channels": 4}
    return TinyFluxConfig(**{**sizes, **changes})


def test_the_description_of_a_network_without_ports_is_unchanged():
    assert "ports" not in config().to_dict()
    assert TinyFluxConfig.from_dict(config().to_dict()) == config()
    assert not any("ports" in name for name in TinyFluxDeep(config()).state_dict())


def test_a_network_with_ports_is_rebuilt_from_its_description():
    described = config(ports=PORTS).to_dict()
    assert described["ports"] == PORTS
    rebuilt = TinyFluxConfig.from_dict(described)
    names = TinyFluxDeep(rebuilt).state_dict().keys()
    assert names == TinyFluxDeep(config(ports=PORTS)).state_dict().keys()


def test_a_new_map_port_does_not_change_the_output():
    torch.manual_seed(0)
    net = TinyFluxDeep(config(ports={"layout": {"kind": "map", "width": 4}})).eval()
    torch.nn.init.normal_(net.final_linear.weight)
    inputs = (torch.randn(2, 4, 4), torch.randn(2, 3, 8), torch.randn(2, 8), torch.rand(2))
    plain = net(*inputs)
    assert torch.equal(net(*inputs, ports={"layout": torch.randn(2, 4, 4)}), plain)
    torch.nn.init.normal_(net.ports["layout"].output_proj.weight)
    assert not torch.equal(net(*inputs, ports={"layout": torch.randn(2, 4, 4)}), plain)


def test_a_map_port_affects_image_tokens_and_not_references():
    torch.manual_seed(0)
    net = TinyFluxDeep(config(ports={"layout": {"kind": "map", "width": 4}})).eval()
    torch.nn.init.normal_(net.ports["layout"].output_proj.weight)
    ids = torch.cat((grid_ids(2, 2), grid_ids(2, 2) + torch.tensor([1.0, 0, 0])))
    inputs = (torch.randn(2, 8, 4), torch.randn(2, 3, 8), torch.randn(2, 8), torch.rand(2))
    image_tokens = []
    net.double_blocks[0].register_forward_pre_hook(lambda _, args: image_tokens.append(args[1]))
    for layout in torch.randn(2, 2, 4, 4):
        ports = {"layout": layout.expand(2, 4, 4)}
        net(*inputs, img_ids=ids, reference_tokens=4, ports=ports, return_expert_pred=True)
    first, second = image_tokens
    assert not torch.equal(first[:, :4], second[:, :4])
    assert torch.equal(first[:, 4:], second[:, 4:])
