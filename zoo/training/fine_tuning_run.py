"""Runs a fine-tuning: from source, rows and settings to a model, its metrics and its artifact."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfp_bnn.core.checks import is_of_step
from tfp_bnn.core.expected_inputs import ExpectedInputs
from tfp_bnn.core.library_state import deterministic_operations
from tfp_bnn.core.randomness import default_seeds_from
from tfp_bnn.models.data_checks import check_examples
from tfp_bnn.priors import PRIORS, Informed
from tfp_bnn.transfer import Candidate, Tuner, choose_inflate
from zoo.architectures import ARCHITECTURES
from zoo.architectures.base import ArchitectureConfig, BuiltFrom
from zoo.core.shown import minutes
from zoo.datasets import Dataset, Split
from zoo.evaluation import card_numbers as evaluation
from zoo.hub.artifacts import GOLDEN_ROWS, check_description, check_size
from zoo.hub.manifest import bundled_models
from zoo.recipes import EvaluationRecipe, FineTuneRecipe, StartFromRecipe
from zoo.training.adaptation import adapted_config
from zoo.training.batches import ListedBatches
from zoo.training.board import board_of
from zoo.training.checkpoints import Checkpoints
from zoo.training.engine import NonFiniteError, run
from zoo.training.fine_tuning_settings import POSTERIOR, Settings
from zoo.training.planning import divergence, tag_of
from zoo.training.results import TrainingRun
from zoo.training.run_folder import RunFolder, describe_model, describe_splits

# More rows would take longer without changing the choice.
_SELECTION_ROWS = 2000
_SELECTION_STEPS = 400
_CANDIDATES = "candidates"


@dataclass(frozen=True)
class FineTuning(TrainingRun):
    """Result of `fine_tune`. Can be passed to `zoo.save_artifact`.

    Attributes:
        model: Fine-tuned model.
        recipe: Recipe of the run, with the chosen values.
        history: Lists by name, one number per tenth of the steps.
        metrics: Numbers for the card. Empty if nothing was measured.
        path: Folder of the artifact, or None.
        about: Description of data and source for the artifact.
        golden_inputs: A few inputs whose predictions are stored in the artifact.
        inflate: Factor of the standard deviations of the source's posterior, or None if that is not the prior.
        head_scale: Standard deviation of the prior of the new head, or None without a new head or with another prior.
        candidates: Candidates of the cross-validation, best first. Empty if there was nothing to choose.
    """

    inflate: float | None = None
    head_scale: float | None = None
    candidates: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """Source and data of a fine-tuning.

    Attributes:
        source: Model to start from.
        source_name: Name or folder of the source, or None if it was passed as an object.
        data: Dataset, or None for rows only.
        rows: Training rows.
        dataset_name: Name under which the dataset was requested, or None.
    """

    source: Any
    source_name: str | None
    data: Dataset | None
    rows: Split
    dataset_name: str | None

    @property
    def built(self) -> BuiltFrom:
        """Architecture and config of the source."""
        return self.source.architecture


@dataclass(frozen=True)
class Options:
    """Arguments of `fine_tune` that do not affect the weights.

    Attributes:
        measure: Whether to evaluate on the test split.
        out: Folder for the artifact, or None.
        overwrite: Whether to replace `out` if it exists.
        resume: Whether to continue an unfinished run.
        checkpoint_seconds: Seconds between checkpoints.
        callbacks: Keras callbacks.
        tensorboard: Folder for a TensorBoard log, or None.
        tell: Function that receives messages for the user.
    """

    measure: bool
    out: str | os.PathLike[str] | None
    overwrite: bool
    resume: bool
    checkpoint_seconds: float
    callbacks: Sequence[keras.callbacks.Callback]
    tensorboard: str | os.PathLike[str] | None
    tell: Callable[[str], None]


def run_fine_tuning(
    task: Task, settings: Settings, options: Options, folder: RunFolder, of: FineTuneRecipe | None = None
) -> FineTuning:
    """Chooses values by cross-validation where needed, trains, evaluates and saves.

    Args:
        task: Source and data.
        settings: Checked settings.
        options: Options that do not affect the weights.
        folder: Folder of the run.
        of: Recipe that was passed, whose name, notes, evaluation and overrides are copied, or None.

    Raises:
        ValueError: If data, prior or layers do not fit. Raised before anything is trained.
    """
    config = _config_of_target(task, settings)
    if settings.head == "keep":
        _check_units(task)
    recipe = _recipe(task, settings, config, of)
    new_layers = [task.source.variational_layers[-1].name] if settings.head == "new" else []

    def tuner(steps: int, **how: Any) -> Tuner:
        # Seeds for the initializers of the new head.
        with default_seeds_from(settings.seed):
            target = ARCHITECTURES[task.built.name].build(config, settings.seed)
            size, rate, seed = settings.batch_size, settings.learning_rate, settings.seed
            return Tuner(task.source, target, new_layers, settings.freeze, steps, size or 1, rate, seed, **how)

    with deterministic_operations(settings.seed), default_seeds_from(settings.seed):
        steps = settings.steps or 1
        final = tuner(steps, steps_per_execution=1)
        tuned: Any = final.target
        if folder.target is not None:
            check_size(tuned)
            check_description(_about(task, recipe, None, None, []))
        x, y = task.rows.x, task.rows.y
        check_examples(x, y, tuned.likelihood, tuned.input_shape, tuned.output_shape[1:])
        how, outside = recipe.evaluation, None
        if task.data is not None and options.measure:
            outside = evaluation.out_of_distribution_block(task.data, how.out_of_distribution, how.num_samples)
        board = [] if options.tensorboard is None else [_board(recipe, task, Path(options.tensorboard), options.tell)]
        with folder.held(options.tell):
            checkpoints = folder.checkpoints(settings.seed, _fingerprint(recipe, task))
            resume = checkpoints is not None and bool(checkpoints.generations())
            if checkpoints is not None and resume:
                # Fails for a run with different settings before anything is chosen or written.
                checkpoints.load()
            trial = partial(tuner, min(steps, _SELECTION_STEPS))
            inflate, head_scale, candidates = _choice(
                trial, task.rows, settings, bool(new_layers), checkpoints, options.tell
            )
            final.begin(inflate, head_scale)
            progress = run(
                tuned,
                ListedBatches(task.rows, final.rows_of_steps(len(x))),
                checkpoints=checkpoints,
                resume=resume,
                checkpoint_seconds=options.checkpoint_seconds,
                callbacks=[*options.callbacks, *board],
                tell=options.tell,
            )
            # There is no validation split here: this is the NLL of training in the last epoch, if there was one.
            for nll in progress.history.get("nll", [])[-1:]:
                if task.data is not None and (complaint := divergence(nll, task.data, tuned.likelihood, "training")):
                    options.tell(f"warning: the fine-tuning diverged: {complaint}: --learning-rate ...")
            metrics: dict[str, Any] = {}
            if task.data is not None and outside is not None:
                numbers = evaluation.measure(tuned, task.data, how, outside)
                metrics = evaluation.with_spread(numbers, settings.seed, {})
            done = FineTuning(
                model=tuned,
                recipe=_with_choice(recipe, inflate, head_scale),
                history=progress.history,
                metrics=metrics,
                path=folder.target,
                about=_about(task, recipe, inflate, head_scale, candidates),
                golden_inputs=(x if task.data is None else task.data.test.x)[:GOLDEN_ROWS],
                inflate=inflate,
                head_scale=head_scale,
                candidates=candidates,
            )
            folder.save(done, name=None if of is not None or folder.target is None else folder.target.name)
    done.name_outputs()
    return done


def _config_of_target(task: Task, settings: Settings) -> ArchitectureConfig:
    config = adapted_config(
        task.built,
        task.data,
        task.rows.x,
        task.rows.y,
        settings.head,
        settings.kernel_prior(task.built),
        settings.informed,
        settings.adapt_inputs,
    )
    if not settings.informed and isinstance(PRIORS.get(config.kernel_prior), Informed):
        raise ValueError(
            f"With prior={settings.prior!r} the prior would be 'informed' without a posterior. Pass prior='posterior' "
            "to use the posterior of the source, or name another prior, such as 'normal'."
        )
    return config


def _check_units(task: Task) -> None:
    """Refuses data in other units than the outputs of a head that is kept."""
    of_source, of_data = task.source.target_units, None if task.data is None else task.data.target_units
    if of_source and of_data and tuple(of_source) != tuple(of_data):
        raise ValueError(
            f"head='keep' predicts in {', '.join(of_source)}, as the source does, but the targets are in "
            f"{', '.join(of_data)}. Convert them, write the unit as the source does, or use head='new'."
        )


def _recipe(task: Task, settings: Settings, config: ArchitectureConfig, of: FineTuneRecipe | None) -> FineTuneRecipe:
    """Returns the recipe of the run, with every default written out."""
    tag = tag_of(task.data.name) if task.data else "rows"
    return FineTuneRecipe(
        name=of.name if of else f"{task.built.name}.{tag}_tuned",
        start_from=StartFromRecipe(
            model=task.source_name,
            prior=POSTERIOR if settings.informed else config.kernel_prior,
            inflate=settings.inflate,  # type: ignore[arg-type]
            head_scale=settings.head_scale,  # type: ignore[arg-type]
            mix=settings.mix,
            freeze=tuple(settings.freeze),
            head=settings.head,
            adapt_inputs=settings.adapt_inputs,
        ),
        dataset=task.dataset_name,
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        evaluation=of.evaluation if of else EvaluationRecipe(spread_seeds=()),
        notes=of.notes if of else "",
        overrides=of.overrides if of else {},
    )


def _with_choice(recipe: FineTuneRecipe, inflate: float | None, head_scale: float | None) -> FineTuneRecipe:
    chosen = {name: value for name, value in (("inflate", inflate), ("head_scale", head_scale)) if value is not None}
    return recipe.model_copy(update={"start_from": recipe.start_from.model_copy(update=chosen)})


def _choice(
    trial: Callable[[], Tuner],
    rows: Split,
    settings: Settings,
    new_head: bool,
    checkpoints: Checkpoints | None,
    tell: Callable[[str], None],
) -> tuple[float | None, float | None, list[Candidate]]:
    """Returns the factor, the scale of the new head, and the candidates, tried now or before the run was resumed."""
    if not settings.informed:
        return None, None, []
    inflates, head_scales = settings.inflates, settings.head_scales
    if len(inflates) == 1 and (len(head_scales) == 1 or not new_head):
        return inflates[0], head_scales[0] if new_head else None, []
    kept = None if checkpoints is None else checkpoints.recall(_CANDIDATES)
    if kept is None:
        tell("choosing the prior by cross-validation ...")
        picked = np.random.default_rng(settings.seed).permutation(len(rows))[:_SELECTION_ROWS]
        try:
            candidates = choose_inflate(
                trial(),
                rows.x[picked],
                rows.y[picked],
                inflates,
                head_scales,
                seed=settings.seed,
                progress=_told(tell, time.monotonic()),
            )
        except ValueError as error:
            if not is_of_step(error):
                raise
            raise NonFiniteError(f"Every candidate of the cross-validation diverged. {error}") from error
        if checkpoints is not None:
            checkpoints.remember(_CANDIDATES, [asdict(candidate) for candidate in candidates])
    else:
        candidates = [Candidate(**candidate) for candidate in kept]
    best = candidates[0]
    of_head = f", head_scale {best.head_scale:g}" if new_head else ""
    tell(f"chosen by cross-validation: inflate {best.inflate:g}{of_head}")
    return best.inflate, best.head_scale, candidates


def _told(tell: Callable[[str], None], start: float) -> Callable[[int, int], None]:
    """Tells of the time left of a cross-validation after each tenth of its fits, but not after the last."""

    def progress(done: int, fits: int) -> None:
        if 10 * done // fits > 10 * (done - 1) // fits and done < fits:
            left = (time.monotonic() - start) / done * (fits - done)
            tell(f"cross-validation: {done} of {fits} fits, {minutes(left)} left")

    return progress


def _board(recipe: FineTuneRecipe, task: Task, folder: Path, tell: Callable[[str], None]) -> keras.callbacks.Callback:
    folder.mkdir(parents=True, exist_ok=True)
    return board_of(recipe, task.data, folder, tell)


def _fingerprint(recipe: FineTuneRecipe, task: Task) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"name", "notes", "evaluation", "overrides"}),
        "source": describe_model(task.source),
        **describe_splits(train=task.rows),
    }


def _about(
    task: Task, recipe: FineTuneRecipe, inflate: float | None, head_scale: float | None, candidates: list[Candidate]
) -> dict[str, Any]:
    """Returns the description of data and source for the artifact and its card."""
    about: dict[str, Any] = {} if task.data is None else task.data.about()
    about.setdefault("inputs", ExpectedInputs.of(task.rows.x).get_config())
    if recipe.start_from.head == "keep":
        # The outputs are those of the source. Data may say less of them.
        of_source = {name: getattr(task.source, name, None) for name in ("class_names", "target_units")}
        about |= {name: value for name, value in of_source.items() if value is not None and about.get(name) is None}
    # Data in memory have no name: looking it up would find nothing, or different rows.
    about["dataset"] = task.dataset_name
    start = recipe.start_from.model_dump(mode="json")
    about["fine_tuning"] = {
        "source": task.source_name,
        "trust": task.source_name is not None and task.source_name not in bundled_models(),
        "dataset": None if task.data is None else task.data.name,
        "inflate": inflate,
        "head_scale": head_scale,
        **{name: start[name] for name in ("prior", "mix", "head", "freeze", "adapt_inputs")},
        **{name: getattr(recipe, name) for name in ("steps", "batch_size", "learning_rate", "seed")},
        # JSON has no infinity.
        "candidates": [{**asdict(of), "nll": of.nll if math.isfinite(of.nll) else None} for of in candidates],
    }
    return about
