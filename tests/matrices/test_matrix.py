"""Matrix YAML -> specs: the merge order, what is left out, searches, refusals of what would be lost."""

import textwrap
from pathlib import Path

import pytest

from benchmark.errors import UserError
from benchmark.matrices import listing, matrix

USUAL = """
    defaults: {model: tiny-bert, data: twin, max_steps: 2, lr: 1.0e-3}
    tasks: [glue/sst2]
    strategies: [full]
"""


@pytest.fixture
def load(tmp_path):
    def load(text, **replaced):
        path = tmp_path / "made_up.yaml"
        path.write_text(textwrap.dedent(text))
        return matrix.load(path)

    return load


def specs(loaded):
    return [spec for cell in loaded.cells for spec in cell.runs()]


def test_defaults_task_model_strategy_cell_in_that_order(load):
    loaded = load(
        """
        defaults: {data: twin, max_steps: 1, batch_size: 1, max_length: 11, warmup: 0.1, lr: 1.0e-1}
        tasks:
          glue/sst2: {max_steps: 2, batch_size: 2, max_length: 12, warmup: 0.2}
          glue/mrpc:
        models:
          tiny-bert: {max_steps: 3, batch_size: 3, max_length: 13}
          tiny-gpt2:
        strategies:
          full: {max_steps: 4, batch_size: 4}
          mine: {strategy: hift, m: 3}
        cells:
          - {task: glue/sst2, model: tiny-bert, strategy: full, max_steps: 5}
    """.replace("m: 3", "group_size: 3")
    )
    found = {(s.task, s.model, s.label): s for s in specs(loaded)}
    assert len(found) == 8
    both = found["glue/sst2", "tiny-bert", "full"]
    assert (both.max_steps, both.batch_size, both.max_length, both.warmup, both.lr) == (
        *(5, 4, 13, 0.2, 0.1),
    )
    assert found["glue/sst2", "tiny-bert", "mine"].max_steps == 3
    assert found["glue/sst2", "tiny-gpt2", "mine"].max_steps == 2
    assert found["glue/mrpc", "tiny-gpt2", "mine"].max_steps == 1
    mine = found["glue/mrpc", "tiny-gpt2", "mine"]
    assert (mine.strategy, mine.label, mine.options) == ("hift", "mine", {"group_size": 3})


def test_tables_are_merged_deep(load):
    loaded = load("""
        defaults: {model: tiny-bert, data: twin, max_steps: 2, search: {seeds: [7], examples: 9}}
        tasks: {glue/sst2: {search: {examples: 5}}}
        strategies: {full: {search: {lr: [1, 2]}}}
    """)
    assert loaded.cells[0].search == matrix.Search(lr=(1, 2), seeds=(7,), examples=5)


def test_merging_one_cell_leaves_the_next_as_it_was(load):
    loaded = load("""
        defaults: {model: tiny-bert, data: twin, max_steps: 2, search: {lr: [1, 2], examples: 9}}
        tasks: [glue/sst2, glue/mrpc]
        strategies: [full]
        cells: [{task: glue/sst2, search: {examples: 5}}]
    """)
    assert [cell.search.examples for cell in loaded.cells] == [5, 9]


def test_lists_and_tables_name_the_same(load):
    as_list = load(USUAL)
    as_table = load(USUAL.replace("[glue/sst2]", "{glue/sst2: }").replace("[full]", "{full: {}}"))
    assert specs(as_list) == specs(as_table)
    assert specs(load(USUAL.replace("model: tiny-bert, ", "") + "    models: [tiny-bert]\n")) == (
        specs(as_list)
    )


def test_a_task_runs_on_the_models_it_lists_or_on_all(load):
    loaded = load(
        """
        defaults: {data: twin, max_steps: 2, lr: 1.0e-3}
        tasks:
          glue/sst2: &prompted {models: [tiny-gpt2, tiny-opt], batch_size: 3}
          glue/mrpc: *prompted
          glue/rte:
        models: [tiny-bert, tiny-gpt2, tiny-opt]
        strategies: [full]
    """
    )
    found = [(spec.task, spec.model, spec.batch_size) for spec in specs(loaded)]
    assert found == [
        *(("glue/sst2", "tiny-gpt2", 3), ("glue/sst2", "tiny-opt", 3)),
        *(("glue/mrpc", "tiny-gpt2", 3), ("glue/mrpc", "tiny-opt", 3)),
        *(("glue/rte", model, 16) for model in ("tiny-bert", "tiny-gpt2", "tiny-opt")),
    ]


def test_exclude_takes_out_what_all_its_names_match(load):
    loaded = load("""
        defaults: {data: twin, max_steps: 2, lr: 1.0e-3}
        models: [tiny-bert, tiny-gpt2]
        tasks: [glue/sst2, glue/mrpc]
        strategies: [full, head]
        exclude: [{task: glue/mrpc, strategy: head}, {model: tiny-gpt2, strategy: full}]
    """)
    assert [(c.task, c.model, c.label) for c in loaded.cells] == [
        ("glue/sst2", "tiny-bert", "full"),
        ("glue/sst2", "tiny-bert", "head"),
        ("glue/sst2", "tiny-gpt2", "head"),
        ("glue/mrpc", "tiny-bert", "full"),
    ]


def test_a_baseline_is_one_of_the_strategies(load):
    text = USUAL.replace("[full]", "[full, head]")
    assert [cell.is_baseline for cell in load(text).cells] == [False, False]
    assert [cell.is_baseline for cell in load(f"{text}    baseline: head\n").cells] == [False, True]
    with pytest.raises(UserError, match=r"up.yaml: baseline: 'haed' is no strategy.*head"):
        load(f"{text}    baseline: haed\n")
    with pytest.raises(UserError, match="baseline: 3 is no strategy"):
        load(f"{text}    baseline: 3\n")


def test_seeds_become_runs_with_equal_settings(load):
    loaded = load(USUAL.replace("lr: 1.0e-3", "lr: 1.0e-3, seeds: [2, 0, 5]"))
    found = specs(loaded)
    assert [spec.seed for spec in found] == [2, 0, 5]
    assert tuple(spec.run_id for spec in found) == loaded.cells[0].run_ids
    assert len({spec.hash for spec in found}) == 3


def test_a_search_is_one_trial_a_rate_on_rows_held_out(load):
    (cell,) = load("""
        defaults: {model: tiny-bert, data: twin, max_steps: 2, seeds: [0, 1]}
        tasks: [glue/sst2]
        strategies: {full: {search: {lr: [1e-3, "2e-3", 4.0e-3], seeds: [9], examples: 50}}}
    """).cells
    trials = cell.trials()
    assert [trial.lr for trial in trials] == [1e-3, 2e-3, 4e-3]
    assert {(t.seed, t.score_on, t.dev_examples) for t in trials} == {(9, "dev", 50)}
    assert len({t.run_id for t in trials}) == 3
    runs = cell.runs(2e-3)
    assert {(r.lr, r.score_on, r.dev_examples) for r in runs} == {(2e-3, "eval", 0)}
    assert tuple(r.run_id for r in runs) == cell.run_ids


def test_the_later_of_rate_and_search_holds(load):
    searched = "full: {search: {lr: [1, 2], examples: 5}}"
    (cell,) = load(USUAL.replace("[full]", f"{{{searched}}}")).cells
    assert cell.search is not None and "lr" not in cell.settings
    (cell,) = load(
        USUAL.replace("[full]", f"{{{searched}}}") + "    cells: [{strategy: full, lr: 0.5}]\n"
    ).cells
    assert cell.search is None and cell.runs()[0].lr == 0.5
    with pytest.raises(UserError, match=r"strategies\.full: gives lr and search"):
        load(USUAL.replace("[full]", "{full: {lr: 1, search: {lr: [1, 2], examples: 5}}}"))


def test_yaml_merge_keys_are_understood(load):
    found = specs(
        load("""
        defaults: {model: tiny-bert, data: twin, max_steps: 2}
        tasks: [glue/sst2]
        strategies: {full: &usual {lr: 1.0e-3, clip: 1}, head: {<<: *usual, lr: 2.0e-3}}
    """)
    )
    assert [(s.lr, s.clip) for s in found] == [(1e-3, 1.0), (2e-3, 1.0)]


def test_two_cells_with_one_run_id_are_refused(load):
    with pytest.raises(UserError, match="two cells would share the run id"):
        load(USUAL.replace("[full]", "{a b: {strategy: full}, a-b: {strategy: full}}"))


def test_a_thousand_cells(load):
    rows = "".join(f"      s{i}: {{strategy: hift, group_size: {i + 1}}}\n" for i in range(500))
    loaded = load(
        USUAL.replace("[glue/sst2]", "[glue/sst2, glue/mrpc]").replace("[full]", "\n" + rows)
    )
    assert len(loaded.cells) == 1000
    assert len({run_id for cell in loaded.cells for run_id in cell.run_ids}) == 1000


@pytest.mark.parametrize("path", sorted(listing.MATRICES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_matrix_here_loads_and_is_named_after_its_file(path: Path):
    loaded = matrix.load(path)
    assert loaded.name == path.stem and loaded.description
    budgets = {(len(cell.search.lr), cell.search.seeds) for cell in loaded.cells if cell.search}
    assert len(budgets) <= 1, "the searches of a table have one stated budget"
