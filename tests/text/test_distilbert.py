"""DistilBERT from a folder in transformers' layout, with the head that releases have."""

import json
import shutil

import pytest
import torch

from tinyflux_pl.core.errors import CheckpointMismatch, ConfigError
from tinyflux_pl.text.distilbert import DistilBertText, TrainedDistilBert
from tinyflux_pl.text.registry import build_text

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "circle", "square"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from transformers import BertTokenizerFast, DistilBertConfig, DistilBertForMaskedLM

    folder = tmp_path_factory.mktemp("distilbert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(WORDS), "dim": 8, "hidden_dim": 16, "n_layers": 2, "n_heads": 2}
    network = DistilBertForMaskedLM(DistilBertConfig(max_position_embeddings=16, **sizes))
    network.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def reference(folder):
    from transformers import AutoTokenizer, DistilBertModel

    return AutoTokenizer.from_pretrained(folder), DistilBertModel.from_pretrained(folder).eval()


def test_embeddings_are_those_of_transformers_without_padding(folder, reference):
    text = DistilBertText(str(folder), length=8)
    encoded = text.encode(["a red circle", "blue"])
    assert (encoded.tokens.shape, text.text_spec.width) == ((2, 8, 8), 8)
    tokenizer, model = reference
    for row, prompt in enumerate(["a red circle", "blue"]):
        expected = model(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0]
        count = int(encoded.mask[row].sum())
        torch.testing.assert_close(encoded.tokens[row, :count], expected)
        torch.testing.assert_close(encoded.pooled[row], expected.mean(0))
    assert build_text(text.name, text.config()).fingerprint() == text.fingerprint()
    assert text.lengths(["a red circle"])[0].read == 5


def test_the_trained_one_begins_as_published_and_has_gradients(folder):
    trained, frozen = (
        TrainedDistilBert(str(folder), length=8),
        DistilBertText(str(folder), length=8),
    )
    prompts = ["a red circle", "blue"]
    network = trained.trained_network().train()
    embedded, expected = network(trained.encode(prompts)), frozen.encode(prompts)
    kept = expected.mask
    torch.testing.assert_close(embedded.tokens[kept], expected.tokens[kept])
    torch.testing.assert_close(embedded.pooled, expected.pooled)
    assert trained.embedded_spec == frozen.text_spec
    embedded.pooled.sum().backward()
    assert all(p.grad is not None for n, p in network.named_parameters() if "attention" in n)
    with torch.device("meta"):
        assert all(p.is_meta for p in trained.trained_network().parameters())


def test_folders_that_are_no_distilbert_are_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="no weights"):
        DistilBertText(None).encode(["a"])
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "n_layers": 3}))
    with pytest.raises(CheckpointMismatch, match=r"layer\.2"):
        DistilBertText(str(other)).encode(["a"])
