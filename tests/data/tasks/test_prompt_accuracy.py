"""PromptAccuracy counts what verifiers read, over any batches and ranks."""

import pytest
import torch

from tests.data.tasks.test_shapes import tensors
from tinyflux_pl.core.errors import DataError
from tinyflux_pl.data.tasks.digits.records import Digits
from tinyflux_pl.data.tasks.prompt_accuracy import PromptAccuracy
from tinyflux_pl.data.tasks.scenes.records import Scenes
from tinyflux_pl.data.tasks.shapes.records import Shapes
from tinyflux_pl.data.verifier import PromptVerifier


class Brightness(PromptVerifier):
    """Claims `bright` if the image is above zero and `named` if the prompt says so."""

    claims = ("bright", "named")

    def check(self, images, prompts):
        bright = images.mean((1, 2, 3)) > 0
        named = torch.tensor([prompt == "yes" for prompt in prompts])
        return {"bright": bright, "named": named, "all": bright & named}


IMAGES = torch.tensor([1.0, 1.0, 1.0, -1.0])[:, None, None, None].expand(-1, 3, 4, 4)
PROMPTS = ["yes", "yes", "no", "yes"]


def plain(result):
    return {name: pytest.approx(float(share)) for name, share in result.items()}


def test_accuracy_does_not_depend_on_the_batch_size():
    at_once, parts = PromptAccuracy(Brightness()), PromptAccuracy(Brightness())
    at_once.update(IMAGES, PROMPTS)
    parts.update(IMAGES[:3], PROMPTS[:3])
    parts.update(IMAGES[3:], PROMPTS[3:])
    assert plain(at_once.compute()) == {"all": 0.5, "bright": 0.75, "named": 0.75}
    assert plain(at_once.compute()) == {
        name: float(share) for name, share in parts.compute().items()
    }


def test_accuracy_states_are_summed_over_ranks():
    ranks = [PromptAccuracy(Brightness()) for _ in range(2)]
    ranks[0].update(IMAGES[:1], PROMPTS[:1])
    ranks[1].update(IMAGES[1:], PROMPTS[1:])
    total = PromptAccuracy(Brightness())
    for name, reduce in total._reductions.items():
        setattr(total, name, reduce(torch.stack([getattr(rank, name) for rank in ranks])))
    total._update_count = 2
    assert plain(total.compute()) == {"all": 0.5, "bright": 0.75, "named": 0.75}


def test_rows_are_kept_on_request_and_cleared_by_reset():
    metric = PromptAccuracy(Brightness(), keep_prompts=True)
    metric.update(IMAGES, PROMPTS)
    assert [prompt for prompt, _ in metric.rows] == PROMPTS
    assert [row["all"] for _, row in metric.rows] == [True, True, False, False]
    metric.reset()
    metric.update(IMAGES[:1], PROMPTS[:1])
    assert len(metric.rows) == 1 and float(metric.compute()["all"]) == 1.0
    silent = PromptAccuracy(Brightness())
    silent.update(IMAGES, PROMPTS)
    assert silent.rows == []


def test_a_different_number_of_images_and_prompts_is_refused():
    with pytest.raises(DataError, match="4 images for 3 prompts"):
        PromptAccuracy(Brightness()).update(IMAGES, PROMPTS[:3])


@pytest.mark.parametrize(
    "source", [Shapes("validation", 40), Scenes("validation", 40), Digits("validation", 40)]
)
def test_every_embedded_verifier_can_be_measured(source):
    records, metric = [source[i] for i in range(40)], PromptAccuracy(source.verifier())
    metric.update(tensors(records), [record.caption for record in records])
    result = metric.compute()
    assert list(result) == ["all", *source.verifier().claims] and min(result.values()) >= 0.95
    metric.reset()
    metric.update(tensors(records), source.prompts(40, "train", 7))
    assert float(metric.compute()["all"]) < 0.4


def test_a_claim_is_counted_only_for_prompts_that_state_it():
    group = next(
        r for r in (Scenes(count=20)[i] for i in range(20)) if r.attributes["relation"] is None
    )
    pair = next(r for r in (Scenes(count=20)[i] for i in range(20)) if r.attributes["relation"])
    metric = PromptAccuracy(Scenes().verifier())
    metric.update(tensors([group]), [group.caption])
    assert "relation" not in metric.compute()
    metric.update(tensors([group]), [pair.caption])
    assert float(metric.compute()["relation"]) == 0.0 and float(metric.compute()["all"]) == 0.5
