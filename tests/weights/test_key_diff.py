"""Differences between the keys of two networks, reported for a person."""

from tinyflux_pl.weights.key_diff import differences

NET = {
    f"blocks.{i}.{part}": (4, 4) for i in range(12) for part in ("attn.weight", "mlp.weight")
} | {"out.bias": (4,)}


def test_equal_keys_give_an_empty_report():
    assert differences(NET, dict(NET)) == ""


def test_the_report_lists_shapes_then_missing_then_unexpected_keys():
    shapes = {**NET, "out.bias": (5,), "extra.weight": (1,)}
    del shapes["blocks.3.attn.weight"]
    assert differences(NET, shapes) == (
        "1 of another shape: out.bias (5,) for (4,); 1 missing: blocks.3.attn.weight; 1 "
        "unexpected: extra.weight"
    )


def test_equal_layers_are_grouped_and_sorted_numerically():
    shapes = {
        key: shape for key, shape in NET.items() if key.split(".")[1] not in ("2", "10", "11")
    }
    assert differences(NET, shapes) == (
        "6 missing: blocks.2.attn.weight (and 2 alike), blocks.2.mlp.weight (and 2 alike)"
    )
    assert differences(dict(reversed(NET.items())), shapes) == differences(NET, shapes)


def test_equal_shape_differences_are_reported_once():
    shapes = {key: (3, 3) if "attn" in key else shape for key, shape in NET.items()}
    assert (
        differences(NET, shapes)
        == "12 of another shape: blocks.0.attn.weight (3, 3) for (4, 4) (and 11 alike)"
    )


def test_a_file_without_common_keys_is_reported_as_another_model():
    shapes = {"encoder.conv_in.weight": (1,), "encoder.conv_in.bias": (1,)}
    report = differences(NET, shapes)
    assert report.startswith(
        "none of its 2 keys is one of the 25 of this network, such as blocks.0.attn.weight; it "
        "holds"
    )
    assert report.endswith("encoder.conv_in.bias, encoder.conv_in.weight")


def test_hostile_keys_are_escaped_and_shortened():
    shapes = {
        **NET,
        "\x1b[2J" + "x" * 10**6: (1,),
        **{f"{'abcdefghij'[i % 10] * (i + 1)}.weight": (1,) for i in range(500)},
    }
    report = differences(NET, shapes)
    assert len(report) < 2000 and "\x1b" not in report and "495 more" in report
    assert len(differences({"x" * 10**6: (1,)}, {"y": (1,)})) < 1000
