"""Writes the log of a training without endangering the training. Needs `tensorboard`."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tfp_bnn import figures
from tfp_bnn.callbacks.board.dashboard import dashboard
from tfp_bnn.callbacks.board.event_log import EventLog, EventLogError
from tfp_bnn.callbacks.board.measurement_figures import measurement_figures
from tfp_bnn.callbacks.board.mirrored_log import MirroredLog
from tfp_bnn.callbacks.board.run_description import hyperparameters, inference_page, model_page
from tfp_bnn.callbacks.board.sinks import Sink, Sinks
from tfp_bnn.callbacks.board.tags import MARGINS, ROOT, TRAIN, safe_names, score_tags, tag_table
from tfp_bnn.callbacks.curvature import layer_curvatures
from tfp_bnn.callbacks.measuring import (
    Measurement,
    diagnose,
    kl_terms_of,
    layer_posteriors,
    learned_prior_scales,
    measure,
    out_of_distribution_aurocs,
)
from tfp_bnn.callbacks.rows import Rows
from tfp_bnn.models.predictive_model import PredictiveModel
from tfp_bnn.models.preparation import natural_gradient_of
from tfp_bnn.models.variational_mixin import VariationalMixin

_ELBO_TERMS = ("elbo", "nll", "kl", "loss", "beta")
_MOST_CURVES = 20
_NUM_STANDARD_ERRORS = 2
# The ratio of a weight with mean 0 would be minus infinity in decibels.
_LEAST_RATIO = 1e-6
# Nats, on a logarithmic axis. An estimate of a KL may be negative.
_LEAST_KL = 1e-3
# TensorBoard shows a figure about 350 pixels wide at first: smaller figures have larger letters there.
_WIDEST_SMALL, _SHRINK, _DPI = 5.0, 0.85, 150


class Recorder:
    """Writer of the logs of a model to the run folders.

    `open` raises if a folder cannot be written. The other methods, except `close`, may raise anything and are called
    through `attempt`, which warns instead: once per item, and only once in total if the log can no longer be written.

    Args:
        log_dir: Folder of the log.
        model: Model with a posterior. Only models with `VariationalMixin` have a description of a training.
        rows: Rows to measure, as `validation_data` and `ood_data`; both are optional.
        num_samples: Number of draws of the weights.
        seed: Seed of the draws.
        class_names: One name per class, or None for their numbers.
        sinks: Where else numbers, figures and texts go.
    """

    def __init__(
        self,
        log_dir: str,
        model: PredictiveModel,
        rows: Mapping[str, Rows],
        num_samples: int,
        seed: int,
        class_names: Sequence[str] | None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self._sinks = Sinks(sinks, log_dir)
        self._log_dir, self._model, self._rows = log_dir, model, rows
        self._num_samples, self._seed, self._class_names = num_samples, seed, class_names
        self._kl_terms = kl_terms_of(model)
        self._logs: dict[str, EventLog] = {}
        self._warned: set[str] = set()
        self._given_up = False

    def open(self, run: str) -> EventLog:
        """Returns the log of a run, opened at its first use; `EventLogError` if that is not possible."""
        if run not in self._logs:
            folder = os.path.join(self._log_dir, run) if run else self._log_dir
            self._logs[run] = MirroredLog(folder, run, self._sinks)
        return self._logs[run]

    def attempt(self, what: str, act: Callable[..., None], *arguments: Any) -> None:
        """Calls a function that writes to the log; if it fails, warns and lets training continue.

        Args:
            what: Description of what is written, for the warning.
            act: Function to call.
            *arguments: Arguments of `act`.
        """
        if self._given_up:
            return
        try:
            with np.errstate(all="ignore"):
                act(*arguments)
        except EventLogError as error:
            self._given_up = True
            warnings.warn(f"{error} Training continues without a log.", stacklevel=3)
        except Exception as error:
            self._warn_once(what, f"{type(error).__name__}: {error}")

    def flush(self) -> None:
        """Flushes all files."""
        for log in self._logs.values():
            log.flush()

    def close(self) -> None:
        """Closes all files, and ends the training in the sinks."""
        for log in self._logs.values():
            self.attempt("the log", log.close)
        self._logs = {}
        self._sinks.tell("close")

    # === Once in a training ===

    def write_description(self, recipe: str | Mapping[str, Any] | None, hparams: Mapping[str, Any]) -> None:
        """Writes the layout of the dashboard, the hyperparameters and the text page."""
        log = self.open(ROOT)
        self.write_layout(ROOT, 0)
        # Only `fit` describes a run.
        log.hyperparameters(hyperparameters(cast(VariationalMixin, self._model), hparams))
        self.write_inference(ROOT, 0)
        log.text("about/tags", tag_table(), 0)
        if recipe is not None:
            page = recipe if isinstance(recipe, str) else f"```\n{json.dumps(recipe, indent=2, default=str)}\n```"
            log.text("about/recipe", page, 0)

    def write_inference(self, run: str, step: int) -> None:
        """Writes what the model is, and what its ELBO and KL are or why it has none."""
        log = self.open(run)
        log.text("about/model", model_page(self._model), step)
        log.text("about/inference", inference_page(self._model), step)

    def write_layout(self, run: str, step: int) -> None:
        """Writes the layout of the custom-scalars dashboard."""
        layout = dashboard(
            classification=None if self._model.likelihood.heads else self._model.likelihood.has_probabilities,
            out_of_distribution="ood_data" in self._rows,
            learned_scales=bool(learned_prior_scales(self._model)),
            inferred_scales=any(name.startswith("prior/") for name in self._kl_terms()),
            natural_gradient=natural_gradient_of(self._model) is not None,
        )
        self.open(run).layout(layout, step)

    def write_success(self) -> None:
        """Writes that the training finished."""
        self.open(ROOT).success()

    # === Each epoch ===

    def write_numbers(self, run: str, numbers: Mapping[str, Any], step: int) -> None:
        """Writes the numbers of `fit` or `evaluate`."""
        values = {name: float(value) for name, value in numbers.items() if np.ndim(value) == 0}
        if not values:
            return
        log = self.open(run)
        number = getattr(self._model, "num_examples", None)
        if "kl" in values and number:
            log.scalar("elbo/kl_per_example", values["kl"] / number, step)
        for name, part in safe_names(values).items():
            group = "elbo" if name in _ELBO_TERMS else "metrics"
            log.scalar(f"{group}/{part}", values[name], step)
        if run == TRAIN and "loss" in values:
            log.scalar("elbo/minimized", values["loss"], step)

    def write_posterior(self, run: str, step: int) -> None:
        """Writes the KL, the signal-to-noise ratio and the share of active weights of each layer."""
        log, terms, posteriors = self.open(run), self._kl_terms(), layer_posteriors(self._model)
        if not terms:
            return
        log.scalar("kl/total", sum(terms.values()), step)
        of_priors = {name.removeprefix("prior/"): kl for name, kl in terms.items() if name.startswith("prior/")}
        of_layers = {name: kl for name, kl in terms.items() if not name.startswith("prior/")}
        for name, part in safe_names(of_layers).items():
            log.scalar(f"kl/layers/{part}", of_layers[name], step)
            log.scalar(f"log10_kl/{part}", math.log10(max(of_layers[name], _LEAST_KL)), step)
            if name in posteriors:
                ratio = posteriors[name].signal_to_noise
                log.scalar(f"posterior/{part}/signal_to_noise", float(np.median(ratio)), step)
                log.scalar(f"posterior/{part}/active_fraction", float(np.mean(ratio > 1)), step)
        scales = {name: float(np.median(groups)) for name, groups in learned_prior_scales(self._model).items()}
        for group, values in (("kl/priors", of_priors), ("prior_scale", scales)):
            for name, part in safe_names(values).items():
                log.scalar(f"{group}/{part}", values[name], step)

    def write_curvature(self, run: str, step: int) -> None:
        """Writes the curvature of each layer and the rates, if a natural gradient trains the model."""
        if not isinstance(self._model, VariationalMixin):
            return
        log, layers, optimizer = self.open(run), layer_curvatures(self._model), natural_gradient_of(self._model)
        for name, part in safe_names(layers).items():
            log.scalar(f"curvature/{part}/determined", layers[name].determined, step)
            log.scalar(f"curvature/{part}/h_to_delta", layers[name].median_ratio, step)
        if optimizer is not None and optimizer.kl_weight is not None:
            numbers = {
                "temperature": optimizer.kl_weight * (self._model.num_examples or math.nan),
                "learning_rate": float(optimizer.learning_rate),
                "curvature_rate": float(optimizer.curvature_rate_of(optimizer.iterations)),
            }
            for name, value in numbers.items():
                log.scalar(f"natural_gradient/{name}", value, step)

    def write_scores(self, run: str, step: int) -> None:
        """Writes the scores of the rows under Monte Carlo prediction, with their margins."""
        inside, outside = self._measured()
        if inside is not None:
            log, errors, tags = self.open(run), inside.standard_errors, score_tags(inside.scores)
            for name, value in inside.scores.items():
                tag = tags[name]
                log.scalar(tag, value, step)
                if name in errors:
                    spread = _NUM_STANDARD_ERRORS * errors[name]
                    log.scalar(f"{MARGINS}/{tag}/lower", value - spread, step)
                    log.scalar(f"{MARGINS}/{tag}/upper", value + spread, step)
        if outside is not None:
            log = self.open(run)
            for name, tag in score_tags(outside.scores).items():
                log.scalar(f"out_of_distribution/{tag.partition('/')[2]}", outside.scores[name], step)
            if inside is not None:
                for name, value in out_of_distribution_aurocs(inside, outside).items():
                    log.scalar(f"out_of_distribution/auroc/{name}", value, step)

    def write_diagnostics(self, run: str, step: int) -> None:
        """Writes what the inference method says of its posterior."""
        if "validation_data" in self._rows:
            numbers = diagnose(self._model, self._rows["validation_data"])
            for name, part in safe_names(numbers).items():
                self.open(run).scalar(f"diagnostics/{part}", numbers[name], step)

    # === Now and then ===

    def draw(self, of_weights: str, of_rows: str, step: int) -> None:
        """Writes histograms, precision-recall curves and figures as far as possible; never raises.

        Args:
            of_weights: Run for plots of the posterior.
            of_rows: Run for plots of predictions.
            step: Step of both runs.
        """
        self.attempt("the histograms of the posterior", self._write_weight_histograms, of_weights, step)
        self.attempt("the histograms of uncertainty", self._write_row_histograms, of_rows, step)
        self.attempt("the precision-recall curves", self._write_curves, of_rows, step)
        self.attempt("the figures of the posterior", self._write_weight_figures, of_weights, step)
        self.attempt("the figures of the measured rows", self._write_row_figures, of_rows, step)

    def _write_weight_figures(self, run: str, step: int) -> None:
        if self._kl_terms():
            self._write_figures(run, {"kl_by_layer": lambda: figures.kl_by_layer(self._kl_terms())}, step)

    def _write_row_figures(self, run: str, step: int) -> None:
        inside, outside = self._measured()
        if inside is not None:
            shown = self._model, inside, outside, self._class_names, self._num_samples, self._seed
            self._write_figures(run, measurement_figures(*shown), step)

    def _write_figures(self, run: str, by_name: Mapping[str, Callable[[], Any]], step: int) -> None:
        for name, draw in by_name.items():
            self.attempt(f"the figure {name!r}", self._write_figure, run, name, draw, step)

    def _write_figure(self, run: str, name: str, draw: Callable[[], Any], step: int) -> None:
        figure = draw()
        if 4.0 < figure.get_size_inches()[0] <= _WIDEST_SMALL:
            figure.set_size_inches(_SHRINK * figure.get_size_inches())
        self.open(run).image(f"figures/{name}", figures.to_png(figure, _DPI), step)

    def _write_weight_histograms(self, run: str, step: int) -> None:
        posteriors = layer_posteriors(self._model)
        for name, part in safe_names(posteriors).items():
            posterior = posteriors[name]
            decibels = 10 * np.log10(np.maximum(posterior.signal_to_noise, _LEAST_RATIO))
            values = {
                "posterior_mean": posterior.mean,
                "posterior_scale": posterior.scale,
                "signal_to_noise_db": decibels,
            }
            for what, array in values.items():
                self._write_histogram(run, f"weights/{part}/{what}", array, step)

    def _write_row_histograms(self, run: str, step: int) -> None:
        inside, outside = self._measured()
        for prefix, measured in (("", inside), ("out_of_distribution_", outside)):
            for name, values in ({} if measured is None else measured.uncertainties).items():
                self._write_histogram(run, f"rows/{prefix}{name}", values, step)

    def _write_histogram(self, run: str, tag: str, values: npt.NDArray[Any], step: int) -> None:
        wrong = int(np.count_nonzero(~np.isfinite(values)))
        if wrong:
            self._warn_once(f"the histogram {tag!r}", f"{wrong} of {values.size} values are NaN or infinite")
            return
        self.open(run).histogram(tag, values, step)

    def _write_curves(self, run: str, step: int) -> None:
        inside, _ = self._measured()
        for head, measured in ({} if inside is None else inside.heads).items():
            if not (measured.has_classes and measured.has_targets):
                continue
            classes = measured.probabilities.shape[-1]
            names = self._class_names or [str(index) for index in range(classes)]
            for index, part in enumerate(safe_names(names[:_MOST_CURVES]).values()):
                positive, probability = measured.targets == index, measured.probabilities[:, index]
                tag = f"precision_recall/{head}/{part}" if head else f"precision_recall/{part}"
                self.open(run).precision_recall(tag, positive, probability, step, names[index])

    def _measured(self) -> tuple[Measurement | None, Measurement | None]:
        inside, outside = (
            measure(self._model, self._rows[name], self._num_samples, self._seed) if name in self._rows else None
            for name in ("validation_data", "ood_data")
        )
        return inside, outside

    def _warn_once(self, what: str, reason: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            warnings.warn(
                f"BayesianTensorBoard could not log {what}: {reason}. Training continues; this warning is shown once.",
                stacklevel=4,
            )
