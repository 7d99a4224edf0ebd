"""The command `demo`, which shows the main features."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.early_recipes import check_option
from zoo.cli.models import names_of_models
from zoo.cli.progress import training_progress, working
from zoo.cli.starting import start
from zoo.core.files import check_file_target, write_atomically
from zoo.core.names import unknown_name_message
from zoo.hub.manifest import bundled_models

if TYPE_CHECKING:
    import numpy as np

    from tfp_bnn import PosteriorPredictive
    from zoo.datasets import Dataset

MODEL = "lenet5_flipout.digits"


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this module."""
    app.command("demo", short_help="Show the main features in half a minute, with a figure.")(demo)


def demo(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Pretrained classifier of images. The data of the default come with scikit-learn.",
            autocompletion=names_of_models,
        ),
    ] = MODEL,
    out: Annotated[Path, typer.Option(metavar="FILE", help="File for the figure.")] = Path("demo_least_certain.png"),
    epochs: Annotated[int, typer.Option(min=0, metavar="N", help="Epochs of the training at the end; 0 for none.")] = 5,
    num_samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of Monte Carlo samples of the weights.")
    ] = 50,
) -> None:
    """Load and evaluate a pretrained posterior, plot its least certain predictions, and train it for a few epochs."""
    if name not in bundled_models():
        raise ValueError(unknown_name_message("pretrained model", name, sorted(bundled_models())))
    check_option("--epochs", epochs or None, "Recipe", "epochs")
    check_file_target(out)
    start()
    import numpy as np

    from zoo.datasets import load_dataset
    from zoo.evaluation.card_numbers import evaluate
    from zoo.hub.loading import load_model
    from zoo.hub.reading import read_artifact
    from zoo.training import train

    with working(f"loading {name}"):
        model, card = load_model(name), read_artifact(name)
        data = load_dataset(card["config"]["data"]["dataset"])
    if data.class_names is None or data.test.x.ndim != 4:
        raise ValueError(f"The demo shows images and their classes, and {name!r} is for other data. Try {MODEL!r}.")
    typer.echo(f"{name}: a posterior over {card['config']['num_weights']:,} weights, files verified\n")
    with working(f"judging it on {len(data.test)} test images with {num_samples} samples"):
        measured = evaluate(model, data, num_samples=num_samples)
        predictive = model.posterior_predictive(data.test.x, num_samples=num_samples)
    typer.echo(f"{'metric':<20} {'measured':>9} {'card':>9}")
    for metric, value in measured.items():
        typer.echo(f"{metric:<20} {value:>9.4f} {card['metrics']['test'][metric]:>9.4f}")
    least_certain = np.argsort(-predictive.entropy())[:8]
    _print_least_certain(predictive, data.test.y, least_certain)
    _save_figure(out, predictive, data, least_certain)
    typer.echo(f"\nfigure: {out}\n")
    if not epochs:
        return
    with training_progress() as callbacks:
        run = train(name, epochs=epochs, measure=False, callbacks=callbacks)
    with working(f"judging the posterior of {_epochs(epochs)} on the same images"):
        again = evaluate(run.model, data, num_samples=num_samples)
    elbo = " -> ".join(f"{value:.2f}" for value in run.history["elbo"][:: max(1, epochs - 1)])
    typer.echo(
        f"trained again by its recipe, shortened to {_epochs(epochs)}: ELBO {elbo} nats per example\n"
        f"{before_and_after(measured, again, len(data.test), epochs)}\n"
        f"the whole recipe: tfp-bnn train {name} --out FOLDER"
    )


def before_and_after(pretrained: dict[str, float], again: dict[str, float], images: int, epochs: int) -> str:
    """Compares the pretrained classifier with the one that was trained here, in words.

    Args:
        pretrained: Scores of the pretrained one, as `zoo.evaluate` returns them.
        again: Scores of the other.
        images: Number of test images.
        epochs: Number of epochs of the other.
    """

    def right(scores: dict[str, float]) -> str:
        return f"{round(scores['accuracy'] * images)} of {images}"

    how = "less" if again["entropy"] > pretrained["entropy"] else "more"
    verdict = "worse" if again["nll"] > pretrained["nll"] else "better"
    return (
        f"The pretrained posterior names {right(pretrained)} test images correctly, the one of {_epochs(epochs)} "
        f"{right(again)}. It is {how} certain: its predictions have a mean entropy of {again['entropy']:.2f} nats, "
        f"those of the pretrained one {pretrained['entropy']:.2f}. All in all its probabilities are {verdict}: the NLL "
        f"is {again['nll']:.3f} nats per image, before it was {pretrained['nll']:.3f}."
    )


def _epochs(number: int) -> str:
    return f"{number} epoch" if number == 1 else f"{number} epochs"


def _print_least_certain(predictive: PosteriorPredictive, labels: np.ndarray, rows: np.ndarray) -> None:
    mean, entropy, epistemic = predictive.mean(), predictive.entropy(), predictive.epistemic()
    typer.echo("\nleast certain test images (nats)")
    typer.echo(f"{'image':>5} {'label':>5} {'entropy':>8} {'epistemic':>9}  most probable classes")
    for row in rows:
        best = (-mean[row]).argsort()[:3]
        classes = "  ".join(f"{index}: {mean[row, index]:.2f}" for index in best)
        typer.echo(f"{row:>5} {labels[row]:>5} {entropy[row]:>8.3f} {epistemic[row]:>9.3f}  {classes}")


def _save_figure(out: Path, predictive: PosteriorPredictive, data: Dataset, rows: np.ndarray) -> None:
    from tfp_bnn.figures import image_predictions

    class_names, labels = data.class_names or (), data.test.y[rows]
    titles = [f"true class: {class_names[label]}" for label in labels]
    figure = image_predictions(data.test.x[rows], predictive.samples[:, rows], titles, class_names, labels=labels)
    contents = io.BytesIO()
    figure.savefig(contents, format=out.suffix.removeprefix(".") or "png", dpi=120)
    write_atomically(out, contents.getvalue())
