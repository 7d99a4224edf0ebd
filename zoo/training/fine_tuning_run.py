"""The run of a fine-tuning: from a source, rows and settings to a model, its numbers and its artifact."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfp_bnn.core.layer_tree import deterministic_operations
from tfp_bnn.core.randomness import default_seeds_from
from tfp_bnn.models.data_checks import check_examples
from tfp_bnn.priors import PRIORS, Informed
from tfp_bnn.transfer import Candidate, Tuner, choose_inflate
from zoo.architectures import ARCHITECTURES
from zoo.architectures.base import ArchitectureConfig, BuiltFrom
from zoo.datasets import Dataset, Split
from zoo.evaluation import card_numbers as evaluation
from zoo.hub.artifacts import save_artifact
from zoo.hub.manifest import bundled_models
from zoo.recipes import EvaluationRecipe, FineTuneRecipe, StartFromRecipe
from zoo.training.adaptation import adapted_config
from zoo.training.batches import ListedBatches
from zoo.training.board import board_of
from zoo.training.checkpoints import Checkpoints
from zoo.training.engine import run
from zoo.training.fine_tuning_settings import POSTERIOR, Settings
from zoo.training.results import TrainingRun
from zoo.training.run_folder import RunFolder, describe_model, describe_splits

# More rows than these are not needed to choose, and would take long.
_SELECTION_ROWS = 2000
_SELECTION_STEPS = 400
_GOLDEN_ROWS = 4
_CANDIDATES = "candidates"


@dataclass(frozen=True)
class FineTuning(TrainingRun):
    """What `fine_tune` gives back. `zoo.save_artifact` takes it.

    Attributes:
        model: The fine-tuned model.
        recipe: The recipe that was followed, with what was chosen.
        history: For each name, a list of one number for each tenth of the steps.
        metrics: What the card shows; empty when nothing was measured.
        path: The folder of the artifact, or None.
        about: What an artifact says of the data and of the source.
        golden_inputs: A few inputs, whose predictions an artifact keeps.
        inflate: Factor of the standard deviations of the source's posterior; None where that is not the prior.
        head_scale: Standard deviation of the prior of the new head; None where there is none, or another prior.
        candidates: What was tried to choose them, the best first; empty where nothing was to be chosen.
    """

    inflate: float | None = None
    head_scale: float | None = None
    candidates: list[Candidate] = field(default_factory=list)


@dataclass(frozen=True)
class Task:
    """What is fine-tuned, and on what.

    Attributes:
        source: The model to start from.
        source_name: Its name or folder; None for a model that was passed as an object.
        data: The dataset; None where there are only rows.
        rows: The rows to train on.
        dataset_name: The name by which the dataset was asked for, or None.
    """

    source: Any
    source_name: str | None
    data: Dataset | None
    rows: Split
    dataset_name: str | None

    @property
    def built(self) -> BuiltFrom:
        """How the source was built."""
        return self.source.architecture


@dataclass(frozen=True)
class Options:
    """The arguments of `fine_tune` that the weights do not depend on; see there.

    Attributes:
        measure: Whether to measure.
        out: The folder of the artifact, or None.
        overwrite: Whether `out` may be replaced.
        resume: Whether to go on with an unfinished run.
        checkpoint_seconds: Time between checkpoints.
        callbacks: As in `fit`.
        tensorboard: A folder, or None.
        tell: Takes messages.
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
    """Chooses what is to be chosen, trains, measures and saves.

    Args:
        task: What is fine-tuned.
        settings: Checked settings.
        options: Where to save, and so on.
        folder: The folder of the run.
        of: The recipe that says so, whose name, notes, evaluation and overrides are taken over; None where there is
            none.

    Raises:
        ValueError: For data, a prior or layers that do not fit; before anything is trained.
    """
    config = _config_of_target(task, settings)
    recipe = _recipe(task, settings, config, of)
    new_layers = [task.source.variational_layers[-1].name] if settings.head == "new" else []

    def tuner(steps: int, **how: Any) -> Tuner:
        # The seeds of the initializers of the new head.
        with default_seeds_from(settings.seed):
            target = ARCHITECTURES[task.built.name].build(config, settings.seed)
            size, rate, seed = settings.batch_size, settings.learning_rate, settings.seed
            return Tuner(task.source, target, new_layers, settings.freeze, steps, size or 1, rate, seed, **how)

    with deterministic_operations(settings.seed), default_seeds_from(settings.seed):
        steps = settings.steps or 1
        final = tuner(steps, steps_per_execution=1)
        tuned: Any = final.target
        x, y = task.rows.x, task.rows.y
        check_examples(x, y, tuned.likelihood, tuned.input_shape, tuned.output_shape[-1])
        board = [] if options.tensorboard is None else [_board(recipe, task, Path(options.tensorboard), options.tell)]
        with folder.held(options.tell):
            checkpoints = folder.checkpoints(settings.seed, _fingerprint(recipe, task))
            resume = checkpoints is not None and bool(checkpoints.generations())
            if checkpoints is not None and resume:
                # Another run is refused before anything is chosen, or written, for it.
                checkpoints.load()
            trial = lambda: tuner(min(steps, _SELECTION_STEPS))  # noqa: E731
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
            metrics: dict[str, Any] = {}
            if task.data is not None and options.measure:
                numbers = evaluation.measure(tuned, task.data, recipe.evaluation)
                metrics = evaluation.with_spread(numbers, settings.seed, {})
            done = FineTuning(
                model=tuned,
                recipe=_with_choice(recipe, inflate, head_scale),
                history=progress.history,
                metrics=metrics,
                path=folder.target,
                about=_about(task, recipe, inflate, head_scale, candidates),
                golden_inputs=(x if task.data is None else task.data.test.x)[:_GOLDEN_ROWS],
                inflate=inflate,
                head_scale=head_scale,
                candidates=candidates,
            )
            if folder.target is not None:
                name = None if of is not None else folder.target.name
                save_artifact(done, folder.target, name=name, overwrite=options.overwrite)
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
            f"With prior={settings.prior!r} the prior would be 'informed', but by nothing. Pass prior='posterior' to "
            "have it informed by the posterior of the source, or name another one, such as 'normal'."
        )
    return config


def _recipe(task: Task, settings: Settings, config: ArchitectureConfig, of: FineTuneRecipe | None) -> FineTuneRecipe:
    """What is done, with every default spelled out."""
    tag = re.sub(r"[^a-z0-9]+", "_", (task.data.name if task.data else "rows").lower())
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
    """The factor, the scale of the new head, and what was tried to choose them, now or before the run was resumed."""
    if not settings.informed:
        return None, None, []
    inflates, head_scales = settings.inflates, settings.head_scales
    if len(inflates) == 1 and (len(head_scales) == 1 or not new_head):
        return inflates[0], head_scales[0] if new_head else None, []
    kept = None if checkpoints is None else checkpoints.recall(_CANDIDATES)
    if kept is None:
        picked = np.random.default_rng(settings.seed).permutation(len(rows))[:_SELECTION_ROWS]
        candidates = choose_inflate(trial(), rows.x[picked], rows.y[picked], inflates, head_scales, seed=settings.seed)
        if checkpoints is not None:
            checkpoints.remember(_CANDIDATES, [asdict(candidate) for candidate in candidates])
    else:
        candidates = [Candidate(**candidate) for candidate in kept]
    best = candidates[0]
    of_head = f", head_scale {best.head_scale:g}" if new_head else ""
    tell(f"chosen by cross-validation: inflate {best.inflate:g}{of_head}")
    return best.inflate, best.head_scale, candidates


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
    """What the artifact says of the data and the source, for its card."""
    about: dict[str, Any] = {} if task.data is None else task.data.about()
    # Whoever looked for data in memory by their name would find nothing, or other rows.
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
        "candidates": [asdict(candidate) for candidate in candidates],
    }
    return about
