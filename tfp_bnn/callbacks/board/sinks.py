"""Where the numbers, figures and texts of a board go besides TensorBoard."""

from __future__ import annotations

import contextlib
import io
import re
import uuid
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class Sink(Protocol):
    """An experiment tracker. Tags begin with the run of the board, as in `train/elbo/kl`; steps are finished epochs."""

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Takes a number."""

    def image(self, tag: str, png: bytes, step: int) -> None:
        """Takes a figure, the bytes of a PNG file."""

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Takes a text in Markdown."""

    def hyperparameters(self, values: Mapping[str, bool | float | str]) -> None:
        """Takes the hyperparameters of the run."""

    def close(self) -> None:
        """Ends a training. What comes later belongs to the same run."""


class Sinks:
    """Several sinks. One that fails is closed and gets nothing more, with a warning; training goes on.

    Args:
        sinks: The sinks.
        log_dir: Folder of the board, for the warning.
    """

    def __init__(self, sinks: Iterable[Sink], log_dir: str) -> None:
        self._sinks, self._log_dir = list(sinks), log_dir

    def tell(self, what: str, *arguments: Any) -> None:
        """Calls a method of each sink, such as `"scalar"`."""
        for sink in [*self._sinks]:
            try:
                getattr(sink, what)(*arguments)
            except Exception as error:
                self._sinks.remove(sink)
                if what != "close":
                    with contextlib.suppress(Exception):
                        sink.close()
                warnings.warn(
                    f"{type(sink).__name__} failed, and gets nothing more of {self._log_dir!r}: "
                    f"{type(error).__name__}: {error}",
                    stacklevel=2,
                )


class MlflowSink:
    """A run of MLflow. Characters that its names cannot have become dashes: `kl/layers/dense#2` is `kl/layers/dense-2`.

    Args:
        experiment: Name of the experiment, created if necessary. Default: MLflow's own default.
        run_name: Name of the run. Default: chosen by MLflow.
        tracking_uri: Where runs are kept. Default: that of MLflow.

    Attributes:
        run_id: Identifier of the run.

    Raises:
        ImportError: If MLflow is not installed.
    """

    def __init__(
        self, experiment: str = "Default", run_name: str | None = None, tracking_uri: str | None = None
    ) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ImportError("MLflow is not installed. Use `pip install 'tfp_bnn[mlflow]'`.") from error
        self._client = mlflow.MlflowClient(tracking_uri)
        known = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if known is None else known.experiment_id
        self.run_id: str = self._client.create_run(number, run_name=run_name).info.run_id
        self._parameters: dict[str, bool | float | str] = {}

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Logs a metric."""
        self._client.log_metric(self.run_id, _name(tag), value, step=step)

    def image(self, tag: str, png: bytes, step: int) -> None:
        """Logs an image."""
        self._client.log_image(self.run_id, _picture(png), key=_name(tag), step=step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Logs an artifact, which replaces an earlier one of this tag."""
        self._client.log_text(self.run_id, markdown, f"{_name(tag)}.md")

    def hyperparameters(self, values: Mapping[str, bool | float | str]) -> None:
        """Logs parameters. MLflow keeps their first values; what another `fit` changes becomes a tag of that name."""
        for name, value in values.items():
            if name not in self._parameters:
                self._client.log_param(self.run_id, _name(name), value)
            elif value != self._parameters[name]:
                self._client.set_tag(self.run_id, _name(name), value)
            self._parameters[name] = value

    def close(self) -> None:
        """Marks the run as finished."""
        self._client.set_terminated(self.run_id)


class WandbSink:
    """A run of Weights & Biases.

    Args:
        **settings: Arguments of `wandb.init`, such as `project`, `name` and `mode="offline"`.

    Raises:
        ImportError: If the package `wandb` is not installed.
    """

    def __init__(self, **settings: Any) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("Weights & Biases is not installed. Use `pip install 'tfp_bnn[wandb]'`.") from error
        self._wandb, self._settings = wandb, {"id": uuid.uuid4().hex, **settings}
        self._run: Any = None

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Logs a number."""
        self._opened().log({tag: value, "epoch": step})

    def image(self, tag: str, png: bytes, step: int) -> None:
        """Logs an image."""
        self._opened().log({tag: self._wandb.Image(_picture(png)), "epoch": step})

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Adds a text to the summary of the run."""
        self._opened().summary[tag] = markdown

    def hyperparameters(self, values: Mapping[str, bool | float | str]) -> None:
        """Adds to the config of the run."""
        self._opened().config.update(dict(values), allow_val_change=True)

    def close(self) -> None:
        """Ends the run; a later training continues it."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _opened(self) -> Any:
        if self._run is None:
            self._run = self._wandb.init(**{"resume": "allow", **self._settings})
            self._run.define_metric("epoch")
            self._run.define_metric("*", step_metric="epoch")
        return self._run


def _name(tag: str) -> str:
    return re.sub(r"[^\w./ -]", "-", tag, flags=re.ASCII)


def _picture(png: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(png))
