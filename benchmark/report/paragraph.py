"""The paragraph that begins a report: what was compared on what, how it came out, and what it costs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.analysis.summary import MEMORY_NAMES, Row
from benchmark.analysis.verdicts import Verdict
from benchmark.records.record import RunRecord
from benchmark.report.tables import baseline_of, listed, model_name, task_name
from benchmark.report.verdicts import sentence, word
from benchmark.sizes import MIB

MOST_NAMED = 6
"""Most strategies whose memory the paragraph names one by one."""
Place = tuple[str, str]


def sentences(
    rows: Sequence[Row],
    records: Sequence[RunRecord],
    by_place: Mapping[Place, Sequence[Row]],
    of_place: Mapping[Place, Verdict],
) -> list[str]:
    """The sentences on what was compared, on what, how it came out, and what it costs in memory."""
    said = [_compared(rows, records, by_place)]
    done = [record for record in records if record.status == "success"]
    if done:
        said += [_trained(done), _machine(done)]
    missing = sum(row.seeds - row.n for row in rows)
    if missing:
        said.append(f"{missing} of {sum(row.seeds for row in rows)} runs have no score yet.")
    if len(by_place) == 1:
        said += [sentence(of) for of in of_place.values()]
        said += _memory(rows)
    else:
        said += _wins(by_place, of_place)
    return said


def _compared(
    rows: Sequence[Row], records: Sequence[RunRecord], by_place: Mapping[Place, Sequence[Row]]
) -> str:
    labels = list(dict.fromkeys(row.label for row in rows))
    tasks = [task_name(rows, task) for task in dict.fromkeys(task for task, _ in by_place)]
    models = [
        _sized(rows, records, model) for model in dict.fromkeys(model for _, model in by_place)
    ]
    what = f"{len(labels)} strategies are" if len(labels) > 1 else f"{labels[0]} is"
    verb = "compared" if len(labels) > 1 else "run"
    where = listed(tasks) if len(tasks) <= MOST_NAMED else f"{len(tasks)} tasks"
    which = listed(models) if len(models) <= MOST_NAMED else f"{len(models)} models"
    return f"{what} {verb} on {where}, with {which}."


def _sized(rows: Sequence[Row], records: Sequence[RunRecord], model: str) -> str:
    sizes = {r.params.total for r in records if r.params and r.spec["model"] == model}
    name = model_name(rows, model)
    return f"{name} ({min(sizes) / 1e6:,.1f}M parameters)" if sizes else name


def _trained(done: Sequence[RunRecord]) -> str:
    """The examples and seeds, each as a range where runs differ."""
    inputs = [record.inputs for record in done if record.inputs]
    scores = [record.scores for record in done if record.scores]
    seeds = Counter((r.spec["task"], r.spec["model"], r.spec["label"]) for r in done)
    source = {
        "mirror": "real data from a mirror",
        "hub": "the Hub's data",
        "twin": "generated data",
        "files": "files of the user's own",
    }
    sources = listed([source[name] for name in dict.fromkeys(i.dataset_source for i in inputs)])
    trained = _range([i.examples_train for i in inputs])
    metrics = listed(list(dict.fromkeys(score.metric for score in scores)), most=3)
    text = f"Runs train on {trained} examples ({sources})"
    text += f" and are scored by {metrics} on {_range([score.n for score in scores])} others"
    many = _range(list(seeds.values()))
    return f"{text}, with {many} seed{'' if many == '1' else 's'} each."


def _range(values: Sequence[int]) -> str:
    if not values:
        return "no"
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _machine(done: Sequence[RunRecord]) -> str:
    """Hardware, dates and commits."""
    kinds = list(dict.fromkeys(_hardware(record.environment) for record in done))
    first, last = (
        min(record.times.started for record in done)[:10],
        max(record.times.finished for record in done)[:10],
    )
    when = f"on {first}" if first == last else f"from {first} to {last}"
    shas = [str(record.code.get("git_sha") or record.code.get("version"))[:7] for record in done]
    commits = list(dict.fromkeys(shas))
    more = f" and {len(commits) - 1} others" if len(commits) > 1 else ""
    return f"They ran {when} on {listed(kinds, most=3)}, at commit {commits[0]}{more}."


def _hardware(environment: Mapping[str, Any]) -> str:
    accelerators = environment.get("accelerators")
    if accelerators:
        names = [str(a.get("name", a)) if isinstance(a, Mapping) else str(a) for a in accelerators]
        return ", ".join(f"{count} × {name}" for name, count in Counter(names).items())
    return f"a CPU ({environment.get('cpu', 'unknown')})"


def _memory(rows: Sequence[Row]) -> list[str]:
    """What each strategy needs of the baseline's memory."""
    first = baseline_of(rows)
    if not first.peak_bytes:
        return []
    shares = {
        row.label: row.peak_bytes / first.peak_bytes
        for row in rows
        if row.peak_bytes is not None and row is not first
    }
    if not shares:
        return []
    kind = MEMORY_NAMES.get(first.memory_kind or "", "peak memory")
    named = f"Of the {kind} of {first.label}, {first.peak_bytes / MIB:,.1f} MiB, "
    if len(shares) <= MOST_NAMED:
        parts = [f"{label} needs {100 * share:.0f} %" for label, share in shares.items()]
        return [f"{named}{listed(parts)}."]
    least, most = (f(shares, key=lambda label: shares[label]) for f in (min, max))
    low, high = 100 * shares[least], 100 * shares[most]
    return [f"{named}the others need {low:.0f} % ({least}) to {high:.0f} % ({most})."]


def _wins(by_place: Mapping[Place, Sequence[Row]], of_place: Mapping[Place, Verdict]) -> list[str]:
    """For each strategy the number of comparisons with the baseline by their outcome."""
    counts: dict[str, Counter[str]] = {}
    for place, mine in by_place.items():
        first = baseline_of(mine)
        for row in mine:
            verdict = word(of_place.get(place), row, first)
            if row is not first and verdict in ("better", "worse", "not separable"):
                counts.setdefault(row.label, Counter())[verdict] += 1
    baselines = {baseline_of(mine).label for mine in by_place.values()}
    than = baselines.pop() if len(baselines) == 1 else "the first strategy of the task"
    return [
        f"{label} is better than {than} in {of['better']} of {of.total()} comparisons, worse in "
        f"{of['worse']}, and not separable in {of['not separable']}."
        for label, of in list(counts.items())[:MOST_NAMED]
    ]
