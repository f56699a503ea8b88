"""Models and datasets in the local caches of the Hub's libraries, laid out as these libraries lay them out.

Each function takes the folder that the fixture `home` gives.
"""

import json
import shutil

import datasets
from datasets.packaged_modules.parquet.parquet import Parquet

import tasks.base


def cache_weights(home, repo, *files, commit="c0ffee", index=None):
    """A snapshot of the repository in the Hub's cache, as huggingface_hub lays it out."""
    folder = home / "hub" / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(commit)
    for name in files:
        (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        (folder / "snapshots" / commit / name).write_text("{}")
    if index:
        content = {"weight_map": {f"layer{i}": shard for i, shard in enumerate(index)}}
        path = folder / "snapshots" / commit / "model.safetensors.index.json"
        path.write_text(json.dumps(content))


def cache_model(home, repo, folder, commit):
    """The model in `folder` as the repository at `commit`, where the branch main stands then."""
    cached = home / "hub" / f"models--{repo.replace('/', '--')}"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir(exist_ok=True)
    (cached / "refs" / "main").write_text(commit)


def cache_dataset(home, task, commit=None, files=None):
    """The dataset of a task, by its name or as such, as the library `datasets` prepares it in its cache.

    files: split -> parquet.
    """
    dataset = tasks.base.load(task).dataset if isinstance(task, str) else task
    if files is None:
        files = {"train": [str(home / "rows.parquet")]}
        datasets.Dataset.from_dict({"sentence": ["a"], "label": [1]}).to_parquet(*files["train"])
    builder = Parquet(
        cache_dir=str(home / "datasets"),
        dataset_name=dataset.id.split("/")[1],
        config_name=dataset.config,
        config_id=dataset.config,
        hash=commit or dataset.revision,
        data_files=files,
    )
    builder.repo_id = dataset.id  # given at once, it would have to come from the Hub
    builder._cache_dir = builder._build_cache_dir()
    builder.download_and_prepare()
