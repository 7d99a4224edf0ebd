"""Layout of TensorBoard's custom-scalars dashboard. Needs the package `tensorboard`."""

from __future__ import annotations

import re

from tensorboard.plugins.custom_scalar.layout_pb2 import (
    Category,
    Chart,
    Layout,
    MarginChartContent,
    MultilineChartContent,
)

from tfp_bnn.callbacks.board.tags import MARGINS

CATEGORIES = ("ELBO and its parts", "KL by layer", "Calibration", "Uncertainty", "Posterior")


def dashboard(
    classification: bool | None,
    out_of_distribution: bool,
    learned_scales: bool = False,
    inferred_scales: bool = False,
    natural_gradient: bool = False,
) -> Layout:
    """Returns a layout of five categories of charts. Layers are found by their tags: similar models share a layout.

    Args:
        classification: Whether the model predicts class probabilities; otherwise it is a regression. None for several
            outputs.
        out_of_distribution: Whether there are out-of-distribution data.
        learned_scales: Whether there are prior scales that change in training.
        inferred_scales: Whether any prior scale has a posterior.
        natural_gradient: Whether `NaturalGradient` trains the model.
    """
    # TensorBoard 2.21 shows the charts with margins of a category from the last to the first.
    elbo = [
        _line("5 beta, the weight of the KL (1 in validation)", "elbo/beta"),
        _line("4 ELBO (nats per example)", "elbo/elbo"),
        _line("3 KL / N (nats per example)", "elbo/kl_per_example"),
        _line("2 NLL (nats per example)", "elbo/nll"),
        _line("1 minimized: NLL + beta KL / N (nats per example)", "elbo/minimized"),
    ]
    kl = [
        _family("KL by layer (log10 of nats)", "log10_kl/"),
        _line("KL in all (nats)", "kl/total"),
    ]
    if inferred_scales:
        kl.append(_family("KL of inferred prior scales (nats)", "kl/priors/"))
    posterior = [
        _family("signal to noise, median of |mean| / scale", "posterior/", "/signal_to_noise"),
        _family("share of weights with |mean| > scale", "posterior/", "/active_fraction"),
    ]
    if learned_scales:
        posterior.append(_family("learned prior scales", "prior_scale/"))
    if natural_gradient:
        posterior += [
            _family("weights that the data determine", "curvature/", "/determined"),
            _family("curvature of the NLL by that of the prior, median", "curvature/", "/h_to_delta"),
        ]
    if classification is None:
        calibration = [
            _margin("predictive NLL of all outputs (nats per example, ± 2 SE)", "predictive/nll"),
            _family("scores of the outputs", "predictive/"),
        ]
        uncertainty = [
            _family("mutual information (nats)", "predictive/", "/mutual_information"),
            _family("epistemic standard deviation", "predictive/", "/epistemic_std"),
        ]
    elif classification:
        calibration = [
            _margin("predictive NLL (nats per example, ± 2 SE)", "predictive/nll"),
            _margin("expected calibration error (± 2 SE)", "calibration/ece"),
            _margin("Brier score (± 2 SE)", "calibration/brier"),
            _margin("accuracy (± 2 SE)", "predictive/accuracy"),
        ]
        uncertainty = [
            _margin("predictive entropy (nats, ± 2 SE)", "uncertainty/predictive_entropy"),
            _margin("mutual information (nats, ± 2 SE)", "uncertainty/mutual_information"),
        ]
    else:
        calibration = [
            _margin("predictive NLL (nats per example, ± 2 SE)", "predictive/nll"),
            _margin("coverage of 90 % intervals (± 2 SE)", "calibration/coverage_90"),
            _margin("RMSE (± 2 SE)", "predictive/rmse"),
        ]
        uncertainty = [
            _margin("epistemic standard deviation (± 2 SE)", "uncertainty/epistemic_std"),
            _margin("aleatoric standard deviation (± 2 SE)", "uncertainty/aleatoric_std"),
        ]
    if out_of_distribution:
        uncertainty += [
            _family("out-of-distribution AUROC", "out_of_distribution/auroc/"),
            _family("out of distribution", "out_of_distribution/")
            if classification is None
            else _lines(
                "uncertainty out of distribution (nats)" if classification else "epistemic std out of distribution",
                *(f"out_of_distribution/{name}" for name in ("predictive_entropy", "mutual_information"))
                if classification
                else ("out_of_distribution/epistemic_std",),
            ),
        ]
    charts = (elbo, kl, calibration, uncertainty, posterior)
    return Layout(
        category=[Category(title=title, chart=of_title) for title, of_title in zip(CATEGORIES, charts, strict=True)]
    )


def _line(title: str, tag: str) -> Chart:
    """One line for each run. TensorBoard smooths other charts at first, but never a margin, here of no width."""
    series = MarginChartContent.Series(value=tag, lower=tag, upper=tag)
    return Chart(title=title, margin=MarginChartContent(series=[series]))


def _lines(title: str, *tags: str) -> Chart:
    return Chart(title=title, multiline=MultilineChartContent(tag=[f"^{re.escape(tag)}$" for tag in tags]))


def _family(title: str, prefix: str, suffix: str = "") -> Chart:
    return Chart(title=title, multiline=MultilineChartContent(tag=[f"^{re.escape(prefix)}.*{re.escape(suffix)}$"]))


def _margin(title: str, tag: str) -> Chart:
    series = MarginChartContent.Series(value=tag, lower=f"{MARGINS}/{tag}/lower", upper=f"{MARGINS}/{tag}/upper")
    return Chart(title=title, margin=MarginChartContent(series=[series]))
