"""Model cards for the Hugging Face Hub: the card of an artifact below metadata in the hub's own format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from zoo.hub.remote.hugging_face import hub_client

# What an earlier upload put on the card.
_ADDED = re.compile(r"\A---\n.*?\n---\n+|^```python\nimport zoo  #.*?^```\n+", re.DOTALL | re.MULTILINE)
_USE = """\
```python
import zoo  # pip install 'tfp_bnn[hub]'

model = zoo.load_artifact("hf://{repository}", trust=True)
predictive = model.posterior_predictive(x, num_samples=50)
```

"""
_TAGS = ("tfp_bnn", "keras", "bayesian", "uncertainty")
# Those of our tasks that the hub has.
_PIPELINES = ("image-classification", "tabular-classification", "tabular-regression")


def hub_card(repository: str, texts: Mapping[str, Any], license: str) -> str:
    """Returns the card of an artifact for a repository of the hub, as Markdown.

    Its metadata are made by `huggingface_hub.ModelCardData`: licence, library, tags, dataset, and each number on the
    test split as an `EvalResult`.

    Args:
        repository: Name of the repository, `user/name`.
        texts: `config`, `metrics` and `card` of the artifact. Metadata that the card has already are replaced.
        license: Licence of the model.

    Raises:
        ValueError: If `huggingface_hub` is not installed.
    """
    hub, config = hub_client(), texts["config"]
    data = config.get("data", {})
    task = f"{'image' if len(config['config']['input_shape']) == 3 else 'tabular'}-{data.get('task')}"
    results = _results(hub, task, data.get("dataset"), texts["metrics"])
    metadata = hub.ModelCardData(
        license=license.lower().replace(" ", "-"),
        library_name="tfp_bnn",
        tags=[*_TAGS, config.get("inference", "variational"), config["architecture"]],
        pipeline_tag=task if task in _PIPELINES else None,
        datasets=None if data.get("dataset") is None else [data["dataset"]],
        metrics=[result.metric_type for result in results] or None,
        model_name=config.get("name") or repository,
        eval_results=results or None,
    )
    # How to load the model comes after the first lines, which say what it is.
    first, heading, others = _ADDED.sub("", texts["card"]).partition("## ")
    use = _USE.format(repository=repository)
    return f"---\n{metadata.to_yaml()}\n---\n\n{first}{use}{heading}{others}"


def _results(hub: Any, task: str, dataset: str | None, metrics: Mapping[str, Any]) -> list[Any]:
    if dataset is None:
        return []
    return [
        hub.EvalResult(
            task_type=task,
            dataset_type=dataset,
            dataset_name=dataset,
            dataset_split=metrics.get("split", "test"),
            metric_type=name,
            metric_value=value,
        )
        for name, value in metrics.get("test", {}).items()
        if value is not None
    ]
