"""Model cards, made from the files of an artifact and read back: no number in a card is typed by hand.

Imports no TensorFlow: `tfp-bnn show` reads only this.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from zoo.manifest import locate, parse_json, read_verified, require


def read_artifact(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """The verified `config`, `metrics`, `card` and `golden` arrays of an artifact, without building the model.

    Args:
        name_or_path: a name of the zoo, or else the path of an artifact's folder.

    Raises:
        ValueError: for an unknown name (names the nearest), or when any file is missing, changed or malformed.
    """
    folder, entry = locate(name_or_path)
    files = read_verified(folder, entry)
    return {
        "config": parse_json(require(files, "config.json", folder), str(folder / "config.json")),
        "metrics": parse_json(require(files, "metrics.json", folder), str(folder / "metrics.json")),
        "card": require(files, "README.md", folder).decode("utf-8"),
        "golden": parse_tensors(require(files, "golden.safetensors", folder), str(folder / "golden.safetensors")),
    }


def parse_tensors(data: bytes, what: str) -> dict[str, npt.NDArray[Any]]:
    """Parses safetensors that may come from anywhere.

    Args:
        data: the bytes of a file.
        what: it is, for messages.

    Raises:
        ValueError: when they are not safetensors of NumPy dtypes.
    """
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{what} is not a safetensors file: {error}. Restore it from where it came.") from None


def model_card(
    config: Mapping[str, Any], metrics: Mapping[str, Any], recipe: str, arrays: Mapping[str, npt.NDArray[Any]]
) -> str:
    """The card of an artifact as Markdown.

    Args:
        config: the contents of `config.json`.
        metrics: the contents of `metrics.json`.
        recipe: the text of `recipe.yaml`.
        arrays: the weight distributions.

    Returns:
        Markdown, ending in a newline.
    """
    data = config["data"]
    parts = [
        f"# {config['name']}\n",
        f"A variational posterior over the {config['num_weights']:,} weights of `{config['architecture']}`"
        + (f", trained on `{data['dataset']}` ({data['task']})." if data.get("dataset") else ".")
        + f" N = {config['num_examples']} training examples.\n",
    ]
    if metrics:
        parts += ["## Measured\n", _metrics_section(metrics)]
    parts += ["## Posterior\n", _posterior_section(arrays, metrics)]
    parts += [
        "## Distributions\n",
        f"- prior of the kernels: `{config['config']['kernel_prior']}`",
        "- posterior: `mean_field_normal`",
    ]
    parts += [f"- likelihood: `{config['config']['likelihood']}`\n"]
    if recipe:
        parts += ["## Recipe\n", f"`tfp-bnn train {config['name']}` runs it:\n", f"```yaml\n{recipe}```\n"]
    return "\n".join(parts)


def posterior_statistics(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
    """Medians over all Bayesian weights: a near-delta posterior is visible at a glance.

    Args:
        arrays: the weight distributions.

    Returns:
        `median_scale` and `median_signal_to_noise` (|mean| / scale).
    """
    kernels = [name.removesuffix("/loc") for name in arrays if name.endswith("/loc")]
    scales = np.concatenate([arrays[f"{name}/scale"].ravel() for name in kernels])
    means = np.concatenate([arrays[f"{name}/loc"].ravel() for name in kernels])
    return {
        "median_scale": float(np.median(scales)),
        "median_signal_to_noise": float(np.median(np.abs(means) / scales)),
    }


def _metrics_section(metrics: Mapping[str, Any]) -> str:
    test = metrics["test"]
    spread = metrics.get("spread", {})
    rows = ["| metric | test | mean ± standard deviation over training seeds |", "|---|---|---|"]
    for name, value in test.items():
        over = spread.get(name)
        across = f"{over['mean']:.4g} ± {over['std']:.2g}" if over else "-"
        rows.append(f"| {name} | {value:.4g} | {across} |")
    seeds = ", ".join(str(seed) for seed in metrics.get("training_seeds", []))
    note = (
        f"\nOn {metrics['num_examples']} test examples, with {metrics['num_samples']} Monte Carlo samples of the "
        f"weights (seed {metrics['seed']}); "
        f"training seeds {seeds}, the stored posterior being that of the first. NLL, entropies and mutual information "
        f"in nats.\n"
    )
    return "\n".join(rows) + "\n" + note


def _posterior_section(arrays: Mapping[str, npt.NDArray[Any]], metrics: Mapping[str, Any]) -> str:
    statistics = posterior_statistics(arrays)
    lines = [
        f"- median posterior scale: {statistics['median_scale']:.4g}",
        f"- median |mean| / scale: {statistics['median_signal_to_noise']:.4g}",
    ]
    if "kl" in metrics:
        lines.append(f"- KL(posterior || prior): {metrics['kl']['total']:.1f} nats; final beta {metrics['beta']:g}")
        lines += [f"  - {layer}: {value:.1f} nats" for layer, value in metrics["kl"]["by_layer"].items()]
    for name in sorted(arrays):
        if name.endswith("prior_scale") or name == "likelihood/scale":
            lines.append(f"- learned `{name}`: {float(arrays[name]):.4g}")
    return "\n".join(lines) + "\n"
