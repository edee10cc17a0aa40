"""How the keys of two networks differ, told so that a person can act on it."""

from tinyflux_pl.weights.key_diff import differences

NET = {
    f"blocks.{i}.{part}": (4, 4) for i in range(12) for part in ("attn.weight", "mlp.weight")
} | {"out.bias": (4,)}


def test_nothing_is_said_where_nothing_differs():
    assert differences(NET, dict(NET)) == ""


def test_shapes_come_first_then_what_is_missing_then_what_is_too_much():
    held = {**NET, "out.bias": (5,), "extra.weight": (1,)}
    del held["blocks.3.attn.weight"]
    assert differences(NET, held) == (
        "1 of another shape: out.bias (5,) for (4,); 1 missing: blocks.3.attn.weight; 1 "
        "unexpected: extra.weight"
    )


def test_layers_are_counted_and_told_once_in_the_order_of_their_numbers():
    held = {key: shape for key, shape in NET.items() if key.split(".")[1] not in ("2", "10", "11")}
    assert differences(NET, held) == (
        "6 missing: blocks.2.attn.weight (and 2 alike), blocks.2.mlp.weight (and 2 alike)"
    )
    assert differences(dict(reversed(NET.items())), held) == differences(NET, held)


def test_shapes_that_are_alike_are_told_once():
    held = {key: (3, 3) if "attn" in key else shape for key, shape in NET.items()}
    assert (
        differences(NET, held)
        == "12 of another shape: blocks.0.attn.weight (3, 3) for (4, 4) (and 11 alike)"
    )


def test_a_file_of_something_else_is_said_to_be_that():
    held = {"encoder.conv_in.weight": (1,), "encoder.conv_in.bias": (1,)}
    told = differences(NET, held)
    assert told.startswith(
        "none of its 2 keys is one of the 25 of this network, such as blocks.0.attn.weight; it "
        "holds"
    )
    assert told.endswith("encoder.conv_in.bias, encoder.conv_in.weight")


def test_hostile_keys_neither_flood_nor_act_on_a_terminal():
    held = {
        **NET,
        "\x1b[2J" + "x" * 10**6: (1,),
        **{f"{'abcdefghij'[i % 10] * (i + 1)}.weight": (1,) for i in range(500)},
    }
    told = differences(NET, held)
    assert len(told) < 2000 and "\x1b" not in told and "495 more" in told
    assert len(differences({"x" * 10**6: (1,)}, {"y": (1,)})) < 1000
