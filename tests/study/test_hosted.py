"""Models whose own layers run as they are, with windows, states and attention sinks, can be relaxed too."""

from __future__ import annotations

import pytest
import torch
from families import KINDS, make_family

from seer_ray.corpora.pack import Pack
from seer_ray.fidelity.passes import DensePass, Pages
from seer_ray.models.patch import forward_tokens
from seer_ray.study.forward import DensePack, How, Model

LENGTHS = (70, 50)


@pytest.mark.parametrize("family", KINDS)
@torch.inference_mode()
def test_relaxed(family: str) -> None:
    """Side by side is one by one; a window as long as the text is the dense layer, all else is not; it is the
    same whether the layers before the relaxed one are computed anew or not."""
    draw = torch.Generator().manual_seed(0)
    documents = [torch.randint(0, 256, (length,), generator=draw) for length in LENGTHS]
    model = Model(make_family(family), How(window=max(LENGTHS), first=0), max(LENGTHS))
    dense = DensePack(model, Pack.of(documents), torch.arange(sum(LENGTHS)))
    dense.run(2**30)
    one_by_one = [
        forward_tokens(
            model.model, one, DensePass(Pages(model.shape, model.ropes, len(one), 16, model.weight))
        )
        for one in documents
    ]
    torch.testing.assert_close(dense.final, torch.cat(one_by_one), rtol=1e-3, atol=1e-3)
    model.set_stream("fixed", model.embedded(documents[0]))
    # One whose own queries and keys are not those of a relaxation.
    layer = max(at for at in model.shape.selecting() if model.shape.mixers[at] in ("attention", "parallel"))
    whole = DensePack(model, dense.pack, dense.rows)
    whole.run(0)
    for kind in ("window", "uniform", "static", "fixed", "skip"):
        found = dense.relaxed([layer], kind)
        assert torch.allclose(found, dense.final, rtol=1e-3, atol=1e-3) is (kind == "window"), kind
        torch.testing.assert_close(found, whole.relaxed([layer], kind), rtol=1e-3, atol=1e-3)
