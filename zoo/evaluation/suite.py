"""The suite: how good a classifier of images is, on its test split, on other data, and on corrupted images.

`tfp-bnn evaluate NAME --suite` runs it from the command line. On the validation split, the other data are made from
that split, so that choices can be made there which the test then does not know of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tfp_bnn.core.expected_inputs import any_inputs
from tfp_bnn.inference import members_of
from tfp_bnn.metrics import (
    RiskCoverageCurve,
    area_under_risk_coverage,
    out_of_distribution_auroc,
    out_of_distribution_fpr,
    risk_coverage_curve,
)
from tfp_bnn.models import PredictiveModel
from tfp_bnn.models.weight_record import count_weights
from tfp_bnn.predictive import PosteriorPredictive, for_each_class, score
from zoo.datasets import Dataset, Split, load_dataset
from zoo.datasets.base import SPLIT_NAMES
from zoo.datasets.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from zoo.datasets.development import development_out_of_distribution
from zoo.datasets.images import PixelRange, fitted, is_image_shape, pixel_range_of
from zoo.evaluation.blocks import Block, check_draws_fit
from zoo.evaluation.card_numbers import QUICK_EXAMPLES, load_outside, uncertainties
from zoo.evaluation.data_checks import check_names, check_task, trained_on

CORRUPTION_SCORES = ("accuracy", "nll", "ece")
CLEAN = "clean"
"""Name of the images without a corruption, at severity 0."""
# The first two that are not the dataset of the model.
_OTHER_DATASETS = ("fashion_mnist", "mnist", "cifar10")
# Data that hold the same things: for neither, the other is out of distribution.
_ALIKE = {"digits": "mnist"}
# Networks with more weights have fewer corrupted images and draws.
_MANY_WEIGHTS, _FEW_EXAMPLES, _FEW_SAMPLES = 100_000, 500, 16
# Of the inputs, which are the same for every model and every seed of the draws.
_SEED_OF_INPUTS = 0
_COVERAGES = 20

Numbers = dict[str, float]


@dataclass(frozen=True, eq=False)
class Suite:
    """Results of the suite. NLL and uncertainties are in nats.

    Attributes:
        dataset: Name of the dataset.
        split: Name of the split.
        num_examples: Number of its examples.
        num_samples: Number of draws of the weights.
        seed: Seed of the draws.
        calibrated: Whether the model's calibration was applied. That of the plug-in mean never is.
        scores: Those of `zoo.evaluate`, and `area_under_risk_coverage`, with the least entropy answered first.
        plug_in: The same for the mean of the weights.
        out_of_distribution: By the name of other data: AUROC and FPR95 of telling their inputs from those of the split
            by each uncertainty, `auroc_entropy`, `fpr95_entropy`, `auroc_mutual_information`,
            `fpr95_mutual_information`. With one draw there is no mutual information.
        out_of_distribution_plug_in: The same for the mean of the weights.
        corruptions: By corruption, `"clean"` first, and severity: `accuracy`, `nll` and `ece`.
        num_corrupted: Number of examples that were corrupted, the first of the split.
        num_samples_corrupted: Number of draws for them.
        risk_coverage: The risk-coverage curve, with the least entropy answered first.
        labels: Labels of the split, `(n,)`.
        log_probabilities: Logarithms of the predictive probabilities, `(n, classes)`, float32, nats.
    """

    dataset: str
    split: str
    num_examples: int
    num_samples: int
    seed: int
    calibrated: bool
    scores: Numbers
    plug_in: Numbers
    out_of_distribution: Mapping[str, Numbers]
    out_of_distribution_plug_in: Mapping[str, Numbers]
    corruptions: Mapping[str, Mapping[int, Numbers]]
    num_corrupted: int
    num_samples_corrupted: int
    risk_coverage: RiskCoverageCurve
    labels: npt.NDArray[np.integer[Any]]
    log_probabilities: npt.NDArray[np.float32]

    def by_severity(self) -> dict[int, Numbers]:
        """The mean of each score over all corruptions, by severity; 0 is without."""
        kinds = [of_kind for name, of_kind in self.corruptions.items() if name != CLEAN]
        return {
            0: self.corruptions[CLEAN][0],
            **{
                severity: {key: float(np.mean([kind[severity][key] for kind in kinds])) for key in CORRUPTION_SCORES}
                for severity in SEVERITIES
            },
        }

    def risks(self) -> dict[float, float]:
        """The error rate among the most certain examples, at coverages 0.05, 0.1, ..., 1."""
        coverages = np.arange(1, _COVERAGES + 1) / _COVERAGES
        # The fewest examples that make up that share of all.
        last = np.ceil(coverages * self.num_examples * (1 - 1e-12)).astype(int) - 1
        return dict(zip(coverages.tolist(), self.risk_coverage.risk[last].tolist(), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """All numbers as JSON values. The risk-coverage curve has 20 points."""
        return {
            "dataset": self.dataset,
            "split": self.split,
            "num_examples": self.num_examples,
            "num_samples": self.num_samples,
            "seed": self.seed,
            "calibrated": self.calibrated,
            **self.scores,
            "plug_in": self.plug_in,
            "out_of_distribution": {
                name: {**numbers, "plug_in": self.out_of_distribution_plug_in[name]}
                for name, numbers in self.out_of_distribution.items()
            },
            "corruptions": {
                "num_examples": self.num_corrupted,
                "num_samples": self.num_samples_corrupted,
                "mean": _with_text_keys(self.by_severity()),
                "each": {name: _with_text_keys(numbers) for name, numbers in self.corruptions.items()},
            },
            "risk_coverage": {f"{coverage:g}": risk for coverage, risk in self.risks().items()},
        }

    def rows(self) -> Iterator[dict[str, Any]]:
        """All numbers, one to a row: `part`, `condition`, `severity`, `metric`, `value`.

        `part` is `split`, `out_of_distribution`, `corruption` or `risk_coverage`; `condition` is the name of the data
        or of the corruption, or the coverage. The metrics of the mean of the weights have the suffix `_plug_in`.
        """

        def rows_of(part: str, condition: str, numbers: Numbers, suffix: str = "", severity: int | str = "") -> Any:
            for metric, value in numbers.items():
                where = {"part": part, "condition": condition, "severity": severity}
                yield {**where, "metric": f"{metric}{suffix}", "value": value}

        yield from rows_of("split", self.split, self.scores)
        yield from rows_of("split", self.split, self.plug_in, "_plug_in")
        for name, numbers in self.out_of_distribution.items():
            yield from rows_of("out_of_distribution", name, numbers)
            yield from rows_of("out_of_distribution", name, self.out_of_distribution_plug_in[name], "_plug_in")
        for name, by_severity in self.corruptions.items():
            for severity, numbers in by_severity.items():
                yield from rows_of("corruption", name, numbers, severity=severity)
        for coverage, risk in self.risks().items():
            yield from rows_of("risk_coverage", f"{coverage:g}", {"risk": risk})


def evaluate_suite(
    model: PredictiveModel,
    data: str | Dataset,
    split: str = "test",
    *,
    num_samples: int = 50,
    seed: int = 0,
    calibrated: bool = True,
    out_of_distribution: Sequence[str] | None = None,
    split_name: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> Suite:
    """Runs the suite.

    Whatever cannot be done is refused before the first prediction of the split.

    Args:
        model: Trained classifier of images.
        data: Dataset or its name.
        split: Name of the split.
        num_samples: Number of Monte Carlo samples of the weights. Of networks with more than 100,000 weights, 500
            images are corrupted and predicted with at most 16 samples; of others, 2,000 with all.
        seed: Seed of the samples. The corruptions are the same for every seed.
        calibrated: Whether to apply the model's calibration, if it has one.
        out_of_distribution: Names of datasets of images, of which the first 2,000 test images are used, in the size,
            the channels and the range of `data`. Default: at most two of Fashion-MNIST, MNIST and CIFAR-10, the
            first that are neither `data` nor what the model was trained on. On another split than test, the default is
            `development_out_of_distribution` of the first 2,000 images instead.
        split_name: Name of the split in the results, such as `"all"` for one that holds all rows. Default: `split`.
        tell: Function that is told what is done, in a few words.

    Returns:
        The results.

    Raises:
        ValueError: If the model is no classifier of images, its images have another shape, or the dataset or split is
            unknown. If the draws of the predictions take more than 1 GiB.
        DataMissingError: If data are not on this machine. The message has the command that gets them.

    References:
        Y. Ovadia et al., Can you trust your model's uncertainty? Evaluating predictive uncertainty under dataset
        shift, NeurIPS 2019. https://arxiv.org/abs/1906.02530
    """
    say = tell or (lambda _: None)
    dataset = load_dataset(data) if isinstance(data, str) else data
    part = dataset.split(split)
    _check_fits(model, dataset)
    check_draws_fit("The suite", model, part.x, num_samples, seed)
    outside = _outside(dataset, split, out_of_distribution, trained_on(model))

    say(f"{len(part):,} images of {dataset.name} ({split_name or split}), {num_samples} samples")
    inside = Block(part.x, part.y, num_samples, calibrated)
    predictive, plug_in = (block.predict(model, seed) for block in (inside, replace(inside, plug_in=True)))
    told_apart, told_apart_plug_in = {}, {}
    for name, images in outside.items():
        say(f"{len(images):,} images out of distribution: {name}")
        block = Block(images, None, num_samples, calibrated)
        told_apart[name] = _told_apart(predictive, block.predict(model, seed))
        told_apart_plug_in[name] = _told_apart(plug_in, replace(block, plug_in=True).predict(model, seed))

    corrupted = _to_corrupt(model, part, inside)
    of_corruptions = {CLEAN: {0: _short_scores(model, corrupted, seed)}}
    for name in CORRUPTIONS:
        say(f"{len(corrupted.x):,} images with 5 severities of {name}")
        of_corruptions[name] = _corrupted_scores(model, corrupted, name, _pixel_range(dataset), seed)
    probabilities = for_each_class(predictive.mean())
    return Suite(
        dataset=dataset.name,
        split=split_name or split,
        num_examples=len(part),
        num_samples=predictive.num_samples,
        seed=seed,
        calibrated=calibrated,
        scores=_scores(predictive, part.y),
        plug_in=_scores(plug_in, part.y),
        out_of_distribution=told_apart,
        out_of_distribution_plug_in=told_apart_plug_in,
        corruptions=of_corruptions,
        num_corrupted=len(corrupted.x),
        num_samples_corrupted=min(corrupted.num_samples, predictive.num_samples),
        risk_coverage=risk_coverage_curve(part.y, probabilities, predictive.entropy()),
        labels=part.y,
        # Not the logarithm of the mean, which is 0 where probabilities are too small for float32.
        log_probabilities=np.stack(
            [predictive.log_prob(np.full(len(part), label)) for label in range(probabilities.shape[1])], axis=1
        ),
    )


def _check_fits(model: PredictiveModel, data: Dataset) -> None:
    """Refuses what is no classifier of images, and images that do not fit, with the first row of the data."""
    check_task(model, data)
    check_names(model, data)
    if not is_image_shape(data.input_shape):
        raise ValueError(
            f"The suite is for classifiers of images of at least 8 x 8 pixels with 1 or 3 channels, but the dataset "
            f"{data.name!r} is for {data.task} and has inputs of shape {data.input_shape}. Evaluate the model without "
            "the suite."
        )
    with any_inputs():
        row = model.posterior_predictive(data.train.x[:1], num_samples=1)
    columns = for_each_class(row.mean()).shape[-1]
    if row.target_kind != "class" or row.positions or columns != data.num_classes:
        raise ValueError(
            f"The suite is for classifiers with one label for each image, here one of the {data.num_classes} of "
            f"{data.name!r}, but the model has the likelihood {model.likelihood!r} and outputs of shape "
            f"{(*row.positions, row.num_outputs)}. Choose the dataset that it was trained on."
        )


def _outside(data: Dataset, split: str, names: Sequence[str] | None, known: str | None) -> dict[str, npt.NDArray[Any]]:
    """The inputs out of distribution, by the name of their data; `known` is what the model was trained on."""
    pixel_range = _pixel_range(data)
    if names is None and split != "test":
        images = data.split(split).x[:QUICK_EXAMPLES]
        return dict(development_out_of_distribution(images, _SEED_OF_INPUTS, pixel_range))
    if names is None:
        inside = {data.name, known, *(_ALIKE.get(name) for name in (data.name, known) if name)}
        names = [name for name in _OTHER_DATASETS if name not in inside][:2]
    found = {}
    for name in names:
        other = load_outside(data, name, known)
        if not is_image_shape(other.input_shape):
            raise ValueError(
                f"Out-of-distribution data: {name!r} has inputs of shape {other.input_shape}; images of at least 8 x 8 "
                "pixels with 1 or 3 channels were expected. Choose another dataset."
            )
        images = fitted(other.test.x[:QUICK_EXAMPLES], _pixel_range(other), data.input_shape, pixel_range)
        # A copy, so that the rest of the dataset is not kept in memory.
        found[name] = images.copy()
    return found


def _pixel_range(data: Dataset) -> PixelRange:
    return pixel_range_of(*(data.split(name).x for name in SPLIT_NAMES))


def _scores(predictive: PosteriorPredictive, labels: npt.NDArray[Any]) -> Numbers:
    probabilities = for_each_class(predictive.mean())
    area = area_under_risk_coverage(labels, probabilities, predictive.entropy())
    return {**score(predictive, labels), "area_under_risk_coverage": area}


def _to_corrupt(model: PredictiveModel, part: Split, block: Block) -> Block:
    """The first images of a split, fewer and with fewer draws for a large network."""
    num_examples, num_samples = QUICK_EXAMPLES, block.num_samples
    # An ensemble has the same images and draws as one of its members.
    if max(map(count_weights, members_of(model))) > _MANY_WEIGHTS:
        num_examples, num_samples = _FEW_EXAMPLES, min(num_samples, _FEW_SAMPLES)
    return replace(block, x=part.x[:num_examples], y=part.y[:num_examples], num_samples=num_samples)


def _corrupted_scores(
    model: PredictiveModel, block: Block, name: str, pixel_range: PixelRange, seed: int
) -> dict[int, Numbers]:
    found = {}
    for severity in SEVERITIES:
        images = corrupt(block.x, name, severity, _SEED_OF_INPUTS, pixel_range)
        found[severity] = _short_scores(model, replace(block, x=images), seed)
    return found


def _short_scores(model: PredictiveModel, block: Block, seed: int) -> Numbers:
    # Corrupted images are unlike those of training, which is what is wanted.
    with any_inputs():
        scores = score(block.predict(model, seed), block.y)
    return {name: scores[name] for name in CORRUPTION_SCORES}


def _told_apart(inside: PosteriorPredictive, outside: PosteriorPredictive) -> Numbers:
    pairs = uncertainties(inside), uncertainties(outside)
    # With one draw, there is no disagreement that could tell anything.
    names = [name for name in pairs[0] if name == "entropy" or inside.num_samples > 1]
    numbers = {}
    for name in names:
        numbers[f"auroc_{name}"] = out_of_distribution_auroc(pairs[0][name], pairs[1][name])
        numbers[f"fpr95_{name}"] = out_of_distribution_fpr(pairs[0][name], pairs[1][name])
    return numbers


def _with_text_keys(numbers: Mapping[int, Numbers]) -> dict[str, Numbers]:
    return {str(key): value for key, value in numbers.items()}
