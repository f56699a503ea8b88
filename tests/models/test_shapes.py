"""Models by shape: the six of the paper have the published sizes, and unknown names are refused."""

import pytest
import transformers

from benchmark.engine import find_units
from benchmark.errors import UserError
from benchmark.models import registry, shapes

# numbers of parameters, in total and of the largest unit, computed by hand from the published shapes of the
# layers; the mean of the six reductions is the 89.18 % of the paper's abstract
PUBLISHED = {
    "roberta-base": (124_647_170, 39_000_576),
    "roberta-large": (355_361_794, 52_000_768),
    "gpt2-large": (774_030_080, 65_639_680),
    "gpt-neo-2.7b": (2_651_307_520, 133_900_800),
    "llama-7b": (6_738_415_616, 202_383_360),
    "opt-13b": (12_853_473_280, 314_639_360),
}


def _units(name):
    return find_units(shapes.build(name))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    units = _units(name)
    assert (sum(u.numel for u in units), max(u.numel for u in units)) == PUBLISHED[name]


def test_the_abstracts_mean_reduction():
    reductions = [100 * (1 - peak / total) for total, peak in PUBLISHED.values()]
    assert sum(reductions) / len(reductions) == pytest.approx(89.18, abs=0.005)


def test_smollm2_has_the_parameters_of_its_file():
    assert sum(u.numel for u in _units("smollm2-135m")) == 134_515_008


def test_no_weights_are_made():
    assert all(p.is_meta for p in shapes.build("opt-13b").parameters())


@pytest.mark.parametrize("name", ["roberta-bse", "no-such", "a/b/c"])
def test_unknown_names(name):
    with pytest.raises(UserError, match="no such model, folder or Hub id"):
        shapes.config(name)


def test_a_folder_with_a_head(tmp_path):
    _, config = shapes.config("gpt2-12x512")
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path)
    built = shapes.build(str(tmp_path))
    assert sum(p.numel() for p in built.parameters()) == sum(u.numel for u in _units("gpt2-12x512"))


def test_the_names_of_all_commands_are_one_list():
    """Those that `list models` and a matrix have: a twin, a model in a package, and one of the Hub's."""
    assert set(shapes.SHAPES) <= set(registry.MODELS)
    classes = {"tiny-bert": "BertForSequenceClassification", "tiny-gpt2": "GPT2LMHeadModel"}
    for name, kind in {**classes, "minilm": "BertForSequenceClassification"}.items():
        built = shapes.build(name)
        assert type(built).__name__ == kind
        loaded = transformers.AutoModel.from_pretrained(registry.source(name).location)
        mine = {n: p.shape for n, p in built.base_model.named_parameters() if "pooler" not in n}
        assert mine.items() <= {n: p.shape for n, p in loaded.named_parameters()}.items()
    with pytest.raises(UserError, match=r'did you mean "llama-3.1-8b"'):
        registry.source("llama-3.1-8")
    with pytest.raises(UserError, match="known by its shape alone"):
        registry.source("gpt2-12x512")
