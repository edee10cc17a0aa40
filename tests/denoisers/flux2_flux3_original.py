"""FLUX.2's and FLUX.3's weights in the layout of the releases' single files."""

import torch


def original_layout(kind: str, net) -> dict[str, torch.Tensor]:
    """The network's weights under Black Forest Labs' keys, written out for these few blocks."""
    original, tensors = {}, net.state_dict()

    def take(new: str, *old: str) -> None:
        original[new] = torch.cat([tensors.pop(key) for key in old]).contiguous()

    def halves(new: str, old: str) -> None:  # (scale, shift) there, (shift, scale) here
        original[new] = torch.cat(tensors.pop(old).chunk(2)[::-1]).contiguous()

    for layer in ("in", "out"):
        number = {"in": 1, "out": 2}[layer]
        for name in ("time", "guidance") if kind == "flux2" else ("time",):
            prefix = "time_guidance_embed." if kind == "flux2" else ""
            word = "timestep" if name == "time" else name
            take(
                f"{name}_in.{layer}_layer.weight", f"{prefix}{word}_embedder.linear_{number}.weight"
            )
    take("txt_in.weight", "context_embedder.weight")
    if kind == "flux2":
        take("img_in.weight", "x_embedder.weight")
        take("final_layer.linear.weight", "proj_out.weight")
        halves("final_layer.adaLN_modulation.1.weight", "norm_out.linear.weight")
        for name in (
            "double_stream_modulation_img",
            "double_stream_modulation_txt",
            "single_stream_modulation",
        ):
            take(f"{name}.lin.weight", f"{name}.linear.weight")
        for i in range(2):
            old, new = f"transformer_blocks.{i}", f"double_blocks.{i}"
            streams = (
                ("img", "to_{}", "to_out.0", "", "ff"),
                ("txt", "add_{}_proj", "to_add_out", "added_", "ff_context"),
            )
            for stream, each, out, added, mlp in streams:
                take(
                    f"{new}.{stream}_attn.qkv.weight",
                    *(f"{old}.attn.{each.format(c)}.weight" for c in "qkv"),
                )
                take(f"{new}.{stream}_attn.proj.weight", f"{old}.attn.{out}.weight")
                take(
                    f"{new}.{stream}_attn.norm.query_norm.scale", f"{old}.attn.norm_{added}q.weight"
                )
                take(f"{new}.{stream}_attn.norm.key_norm.scale", f"{old}.attn.norm_{added}k.weight")
                take(f"{new}.{stream}_mlp.0.weight", f"{old}.{mlp}.linear_in.weight")
                take(f"{new}.{stream}_mlp.2.weight", f"{old}.{mlp}.linear_out.weight")
            old, new = f"single_transformer_blocks.{i}", f"single_blocks.{i}"
            take(f"{new}.linear1.weight", f"{old}.attn.to_qkv_mlp_proj.weight")
            take(f"{new}.linear2.weight", f"{old}.attn.to_out.weight")
            take(f"{new}.norm.query_norm.scale", f"{old}.attn.norm_q.weight")
            take(f"{new}.norm.key_norm.scale", f"{old}.attn.norm_k.weight")
        assert not tensors
        return original
    take("final_layer.image.linear.weight", "proj_out.weight")
    halves("final_layer.image.adaLN_modulation.1.weight", "norm_out.linear.weight")
    ends = {
        "attn.to_q.weight": "q_proj.weight",
        "attn.to_k.weight": "k_proj.weight",
        "attn.to_v.weight": "v_proj.weight",
        "attn.to_out.0.weight": "attn_out.weight",
        "attn.norm_q.weight": "norm.query_norm.scale",
        "attn.norm_k.weight": "norm.key_norm.scale",
        "ff.linear_in.weight": "mlp_in.weight",
        "ff.linear_out.weight": "mlp_out.weight",
        ".linear.weight": ".lin.weight",
    }
    starts = {
        "x_embedders.": "emb_in.",
        "mode_blocks.": "content_mode_blocks.",
        "single_transformer_blocks.": "single_blocks.",
    }
    for key in list(tensors):
        new = next((starts[s] + key.removeprefix(s) for s in starts if key.startswith(s)), key)
        new = next((new.removesuffix(e) + ends[e] for e in ends if new.endswith(e)), new)
        take(new, key)
    return original
