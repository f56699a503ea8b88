"""The two models on which the contract of every strategy is tried."""

import pytest
import torch

from benchmark.models import registry


@pytest.fixture(scope="module", params=["tiny-bert", "tiny-gpt2"])
def loaded(request):
    """Name, model as loaded, and a batch with attention masked at the end of one row."""
    source = registry.source(request.param)
    torch.manual_seed(0)
    model = registry.load_model(source, "sequence_classification", 1, num_labels=2)
    ids = torch.randint(10, 900, (4, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 1, 0])}
    return request.param, model, batch
