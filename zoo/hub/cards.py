"""Model cards, generated from the contents of an artifact. No number on a card is typed by hand."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfp_bnn.models.weight_record import Role, WeightRecord
from zoo.hub.optimum_text import optimum_lines, training_lines
from zoo.hub.origin_text import origin_lines
from zoo.hub.pruning_text import pruning_section
from zoo.hub.run_text import how_to_run
from zoo.hub.ways import DIAGNOSTICS, text_of

_MOST_COLUMNS = 20
_IN_TARGET_UNITS = ("rmse", "mae", "aleatoric_std", "epistemic_std")


def model_card(config: Mapping[str, Any], metrics: Mapping[str, Any], recipe: str, *records: WeightRecord) -> str:
    """Returns the card of an artifact as Markdown.

    Args:
        config: Contents of `config.json`.
        metrics: Contents of `metrics.json`.
        recipe: Text of `recipe.yaml`.
        *records: Weights of the model, or of each member of an ensemble.

    Returns:
        Markdown, ending in a newline.
    """
    data = config["data"]
    parts = [
        f"# {config['name']}\n",
        f"{_subject(config)} `{config['architecture']}`"
        + (f", trained on `{data['dataset']}` ({data['task']})." if data.get("dataset") else ".")
        + f" N = {config['num_examples']} training examples.\n",
    ]
    calibration = config.get("calibration")
    if data.get("inputs"):
        parts += ["## Inputs\n", _inputs_section(config["config"]["input_shape"], data["inputs"])]
    if metrics:
        parts += ["## Measured\n", _metrics_section(metrics, config)]
    if config.get("conformal") is not None:
        parts += ["## Conformal prediction\n", _conformal_section(config["conformal"], metrics)]
    if "out_of_distribution" in metrics:
        parts += ["## Out of distribution\n", _out_of_distribution_section(metrics)]
    if "reference" in metrics:
        parts += ["## Agreement with Bayes' rule\n", _reference_section(metrics)]
    parts += ["## Posterior\n", _posterior_section(records, metrics, config)]
    parts += [
        "## Distributions\n",
        f"- prior of the kernels: `{config['config']['kernel_prior']}`",
        f"- posterior: `{config['config'].get('kernel_posterior', 'mean_field_normal')}`",
        *training_lines(recipe),
        *_dropout(config),
        f"- calibration: {_calibration_text(calibration)}",
    ]
    parts += [f"- likelihood: `{config['config']['likelihood']}`\n"]
    parts += ["## Data and licence\n", *origin_lines(config), ""]
    if "fine_tuning" in data:
        parts += ["## Fine-tuning\n", _fine_tuning_section(data["fine_tuning"], data.get("dataset"), *records)]
    if "pruning" in data:
        parts += ["## Pruning\n", pruning_section(data["pruning"])]
    if units := data.get("target_units"):
        parts = [part.replace("units of the target", ", ".join(dict.fromkeys(units))) for part in parts]
    if recipe:
        parts += ["## Recipe\n", f"{how_to_run(recipe, config)}:\n", f"```yaml\n{recipe}```\n"]
    return "\n".join(parts)


def posterior_statistics(*records: WeightRecord) -> dict[str, float]:
    """Summarizes all Bayesian weights, which reveals a posterior that has collapsed or that equals the prior.

    Args:
        *records: Weights of the model, or of each member of an ensemble.

    Returns:
        `median_scale`, in units of the weights; `median_signal_to_noise`, the median of |mean| / scale; and
        `active_fraction`, the share of weights with |mean| > scale. They are those of the weights that have a scale
        and are not pruned; empty if there are none, and for an ensemble.
    """
    posteriors = [parameters for record in records for parameters in record.posteriors().values()]
    posteriors = [parameters for parameters in posteriors if "scale" in parameters]
    if len(records) != 1 or not posteriors:
        return {}
    scales, means = (
        np.concatenate([parameters[name].ravel()[_kept(parameters)] for parameters in posteriors])
        for name in ("scale", "loc")
    )
    if not scales.size:
        return {}
    return {
        "median_scale": float(np.median(scales)),
        "median_signal_to_noise": float(np.median(np.abs(means) / scales)),
        "active_fraction": float(np.mean(np.abs(means) > scales)),
    }


def _kept(parameters: Mapping[str, Any]) -> Any:
    return parameters["mask"].ravel() > 0 if "mask" in parameters else slice(None)


def _subject(config: Mapping[str, Any]) -> str:
    return text_of(config).subject.format_map({**config, "weights": f"{config['num_weights']:,}"})


def _dropout(config: Mapping[str, Any]) -> list[str]:
    rate = config["config"].get("dropout")
    return [f"- dropout after hidden layers: {rate:g}"] if rate else []


def _draws(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    return text_of(config).draws.format_map({**config, "number": metrics["num_samples"], "seed": metrics["seed"]})


def _inputs_section(shape: Sequence[int], inputs: Mapping[str, Any]) -> str:
    of_table = len(shape) == 1
    moments = "mean ± standard deviation" + ("" if of_table else " of the images' means")
    names = inputs.get("names") or [str(index) for index in range(shape[-1])]
    shown = range(min(len(names), _MOST_COLUMNS))
    rows = [
        [
            names[index],
            f"{inputs['low'][index]:.4g} to {inputs['high'][index]:.4g}",
            f"{inputs['mean'][index]:.4g} ± {inputs['std'][index]:.2g}",
        ]
        for index in shown
    ]
    more = len(names) - len(rows)
    return (
        f"Raw inputs of shape {tuple(shape)}, as in the training data:\n\n"
        + _table(["column" if of_table else "channel", "range", moments], rows)
        + (f"\nAnd {more} more columns, in `config.json`.\n" if more else "")
        + "\nPredictions for inputs that are far from these come with a warning.\n"
    )


def _metrics_section(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    test, spread = metrics["test"], metrics.get("spread", {})
    columns = {"test": {name: f"{value:.4g}" for name, value in test.items()}}
    for block, title in (("test_uncalibrated", "test, not calibrated"), ("test_plug_in", "test, plug-in mean")):
        if block in metrics:
            columns[title] = {name: f"{value:.4g}" for name, value in metrics[block].items()}
    columns["mean ± standard deviation over training seeds"] = {
        name: f"{over['mean']:.4g} ± {over['std']:.2g}" for name, over in spread.items()
    }
    rows = [[name, *(column.get(name, "-") for column in columns.values())] for name in test]
    seeds = ", ".join(str(seed) for seed in metrics.get("training_seeds", []))
    which = f"training seeds {seeds}, the stored posterior being that of the first"
    if "pruning" in config["data"]:
        which = f"seed of the pruning {seeds}"
    note = (
        f"\nOn {metrics['num_examples']} test examples, {_draws(config, metrics)}; "
        f"calibration: {_calibration_text(config.get('calibration'))}; "
        f"{which}. NLL, entropies and mutual information in nats{_units_of_numbers(test, config)}.\n"
    )
    return _table(["metric", *columns], rows) + note


def _units_of_numbers(numbers: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    units = config["data"].get("target_units")
    named = [f"`{name}`" for name in _IN_TARGET_UNITS if name in numbers]
    return f", {', '.join(named)} in {', '.join(dict.fromkeys(units))}" if units and named else ""


def _conformal_section(conformal: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    what = _CONFORMAL.get(conformal["name"], f"Regions (`{conformal['name']}`) that contain the target")
    by_class = ", in every class" if isinstance(conformal.get("thresholds"), list) else ""
    drawn = f", seed {conformal['seed']}" if conformal.get("seed") is not None else ""
    of_fit = f" with {conformal['num_samples']} samples{drawn}" if conformal.get("num_samples") is not None else ""
    text = (
        f"{what} of a new example with a probability of at least {conformal['level']:g}{by_class}, if it is "
        f"exchangeable with the examples of the fit, whose predictions were made{of_fit}.\n"
    )
    if "conformal" not in metrics:
        return text
    numbers = {name: f"{value:.4g}" for name, value in metrics["conformal"].items()}
    coverage = metrics["conformal"].get("coverage")
    if coverage is not None:
        error = math.sqrt(max(0.0, coverage * (1.0 - coverage)) / max(1, metrics["num_examples"]))
        numbers["coverage"] += f" ± {error:.2g}"
    table = _table(["on the test split", ""], [[name, number] for name, number in numbers.items()])
    return (
        f"{text}\n{table}\nThe error of the coverage is the binomial standard error of {metrics['num_examples']} "
        f"examples. {'; '.join(meaning for name, meaning in _SIZES.items() if name in numbers)}.\n"
    )


_CONFORMAL = {"sets": "Sets of classes that contain the class", "intervals": "Intervals that contain each target"}
_SIZES = {
    "mean_size": "`mean_size` is the mean number of classes in a set",
    "mean_width": "`mean_width` is the mean width of an interval, in units of the target",
}


def _out_of_distribution_section(metrics: Mapping[str, Any]) -> str:
    outside = metrics["out_of_distribution"]
    rows = [
        [name, f"{metrics['test'][name]:.4g}", f"{value:.4g}"]
        for name, value in outside.items()
        if name in metrics["test"]
    ]
    what = (
        "inputs of noise, uniform over the range of the training inputs"
        if outside["data"] == "uniform"
        else f"test inputs of `{outside['data']}`"
    )
    return (
        _table(["mean over the inputs", "test", f"`{outside['data']}`"], rows)
        + f"\nOn {outside['num_examples']} {what}, that the model was not trained for. The mutual information of label "
        "and weights (nats), or the epistemic standard deviation (units of the target), is what more data like them "
        "would remove.\n" + _auroc_table(outside)
    )


def _auroc_table(outside: Mapping[str, Any]) -> str:
    """How well each uncertainty tells the inputs from those of the test split."""
    names = [name for name in outside if name.startswith("auroc_")]
    if not names:
        return ""
    columns = {"calibrated" if "uncalibrated" in outside else "model": outside}
    titles = {"uncalibrated": "not calibrated", "plug_in": "plug-in mean"}
    columns |= {title: outside[key] for key, title in titles.items() if key in outside}
    rows = [
        [name.removeprefix("auroc_"), *(f"{of[name]:.4g}" if name in of else "-" for of in columns.values())]
        for name in names
    ]
    return (
        "\n" + _table(["AUROC by", *columns], rows) + "\nThe area under the ROC curve with which an uncertainty tells "
        f"them from the first {outside['num_examples']} test examples: 0.5 by chance, 1 at best.\n"
    )


def _reference_section(metrics: Mapping[str, Any]) -> str:
    reference = metrics["reference"]
    model, scores = reference["model"], reference["test"]
    columns = {"reference": scores, "this model": {**metrics["test"], **model}}
    if "model_uncalibrated" in reference:
        columns["not calibrated"] = {**metrics["test_uncalibrated"], **reference["model_uncalibrated"]}
    columns["plug-in mean"] = reference["plug_in"]
    rows = [
        [name, *(f"{column[name]:.4g}" if name in column else "-" for column in columns.values())]
        for name in (*model, *scores)
    ]
    cold = (
        f" The chains have temperature 1; this model was trained with beta {metrics['beta']:g}, so a part of the "
        "distance is that between a cold posterior and Bayes' rule."
        if metrics.get("beta", 1) != 1
        else ""
    )
    temperatures = reference.get("num_temperatures", 1)
    replicas = f", each of {temperatures} replicas that exchange their states," if temperatures > 1 else ""
    return (
        _table(["on the test split", *columns], rows)
        + "\nThe reference is the average over Markov chains of the exact posterior of the same network under the same "
        "prior, likelihood and training data. What has no posterior is fixed at the values of this model: weights "
        f"without a distribution, and learned scales of priors and noise.{cold} "
        + "; ".join(text for name, text in _DISTANCES.items() if name in model)
        + f". They are measured with {AGREEMENT_SAMPLES} draws"
        + f".\n\n`{reference['method']}`, {reference['num_chains']} chains{replicas} of {reference['num_samples']} "
        f"states after {reference['burn_in']}, seed {reference['seed']}: over all predictions the worst R-hat is "
        f"{reference['worst_rhat']:.3f} and the least effective sample size {reference['least_ess']:.0f}; "
        f"{reference['divergent']} divergent trajectories; {reference['cpu_seconds']:.0f} CPU seconds. "
        f"`{reference['command']}` makes it again.\n"
    )


# Draws that a model is compared with its reference by: with few, the distance depends on the seed.
AGREEMENT_SAMPLES = 500

_DISTANCES = {
    "agreement": "`agreement` is the share of examples with the same most probable class as the reference",
    "total_variation": "`total_variation` is the mean of 1/2 sum |p - r| over the classes, between 0 and 1",
    "wasserstein": "`wasserstein` is the mean 1-Wasserstein distance to the predictive of the reference, in units of "
    "the target",
}


def _fine_tuning_section(how: Mapping[str, Any], dataset: str | None, *records: WeightRecord) -> str:
    lines = []
    source = "a model without a name" if how["source"] is None else f"`{how['source']}`"
    if how["inflate"] is not None:
        head = "" if how["head_scale"] is None else f", and that of the new head is N(0, {how['head_scale']:g}^2)"
        mix = f". A share of {how['mix']:g} of each prior is N(0, 1) instead" if how["mix"] else ""
        entries = (entry for record in records for entry in record if entry.array.ndim)
        scales = [e.array.ravel() for e in entries if e.role is Role.PRIOR and e.parameter == "scale"]
        lines += [
            f"The prior of the {'network' if how['head'] == 'keep' else 'body'} is the posterior of {source}, its "
            f"standard deviations times {how['inflate']:g}{head}{mix}. Median prior scale: "
            f"{np.median(np.concatenate(scales)):.4g}.\n"
        ]
    else:
        lines += [f"Training began at the posterior of {source}; the prior is another.\n"]
    if how["candidates"]:
        rows = [
            [
                f"{c['inflate']:g}",
                "-" if c["head_scale"] is None else f"{c['head_scale']:g}",
                "diverged" if c["nll"] is None else f"{c['nll']:.4f}",
            ]
            for c in how["candidates"]
        ]
        lines += ["Chosen by cross-validation on the training rows:\n"]
        lines += [_table(["inflate", "head scale", "held-out NLL (nats)"], rows)]
    if dataset is None and how["dataset"] is not None:
        lines += [f"The data were those of a dataset in memory, `{how['dataset']}`.\n"]
    if dataset is not None and how["source"] is not None:
        choice = ", without the choice" if how["candidates"] else ""
        lines += [f"`{fine_tuning_command(how, dataset)}` does it again{choice}.\n"]
    return "\n".join(lines)


def fine_tuning_command(how: Mapping[str, Any], dataset: str) -> str:
    """Returns the command line that repeats a fine-tuning.

    Args:
        how: Description written by `zoo.fine_tune`.
        dataset: Name of the dataset.
    """
    words = ["tfp-bnn", "finetune", how["source"], "--dataset", dataset]
    if how["inflate"] is None:
        words += ["--prior", json.dumps(how["prior"])]
    else:
        words += ["--inflate", repr(how["inflate"])]
        words += [] if how["head_scale"] is None else ["--head-scale", repr(how["head_scale"])]
        words += ["--mix", repr(how["mix"])] if how["mix"] else []
    words += ["--head", how["head"], *(word for layer in how["freeze"] for word in ("--freeze", layer))]
    words += ["--adapt-inputs"] if how["adapt_inputs"] else []
    words += ["--trust"] if how["trust"] else []
    for name in ("steps", "batch_size", "learning_rate", "seed"):
        words += [f"--{name.replace('_', '-')}", repr(how[name])]
    return shlex.join(words)


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |\n" for cells in (header, *rows)]
    return "".join([lines[0], "|---" * len(header) + "|\n", *lines[1:]])


def _calibration_text(calibration: Mapping[str, Any] | None) -> str:
    if calibration is None:
        return "none"
    return f"{calibration['name']} {calibration[calibration['name']]:.4g}"


def _posterior_section(records: Sequence[WeightRecord], metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    statistics = posterior_statistics(*records)
    if statistics:
        lines = [
            f"- median posterior scale: {statistics['median_scale']:.4g}",
            f"- median |mean| / scale: {statistics['median_signal_to_noise']:.4g}",
            f"- active fraction, the share of weights with |mean| > scale: {statistics['active_fraction']:.4g}",
        ]
    else:
        lines = [f"- {text_of(config).posterior.format_map(config)}"]
    lines += [f"- {DIAGNOSTICS[name]}: {value:.4g}" for name, value in metrics.get("diagnostics", {}).items()]
    if "kl" in metrics:
        divergence = "KL(posterior || prior)" if statistics else "-log p(weights)"
        lines.append(f"- {divergence}: {metrics['kl']['total']:.1f} nats; final beta {metrics['beta']:g}")
        lines += [f"  - {layer}: {value:.1f} nats" for layer, value in metrics["kl"]["by_layer"].items()]
    lines += optimum_lines(metrics)
    # An informed prior has a scale for every weight.
    for index, record in enumerate(records):
        of_member = "" if len(records) == 1 else f" of member {index}"
        learned = (e for e in record if e.parameter == "scale" and e.role is not Role.POSTERIOR and not e.array.ndim)
        for entry in sorted(learned, key=lambda e: e.name):
            lines.append(f"- learned `{entry.name}`{of_member}: {float(entry.array):.4g}")
    return "\n".join(lines) + "\n"
