"""Shared fixtures. TensorFlow is only imported where it is needed, so tests without it start fast."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import random
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# A third-party package that a test installs. Its modules register things when imported.
# The second needs torch, which only its author needed: the tests use what it wrote.
collect_ignore = ["outside_package", "data/laplace_torch/reference.py", "data/torch_files/make.py"]
OUTSIDE_PACKAGE = Path(__file__).parent / "outside_package"

# One thread per operation, set before TensorFlow is imported: the models of the tests are small, and several processes
# of pytest share the cores.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# While tests are collected, the collector would search everything imported so far again and again, and find nothing.
gc.disable()

# Tests above this many seconds that are not marked with one of these are listed at the end of a run.
PATIENCE = 5.0
NOT_QUICK = {"slow", "thorough"}
# Doctests that take more than a second: they train a model, or draw figures of one.
SLOW_DOCTESTS = {
    "tfp_bnn.acquisition.active_learning.active_learning",
    "tfp_bnn.callbacks.board.bayesian_tensorboard.BayesianTensorBoard",
    "tfp_bnn.transfer.updating.update",
    "zoo.evaluation.report.writing.write_evaluation_report",
    "zoo.training.fine_tuning.fine_tune",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks slow doctests, and puts modules with slow tests first, so that a run ends with quick ones on all workers.

    Workers take whole modules in this order (`--dist loadscope`), and so make the fixtures of a module once.
    """
    for item in items:
        if item.name in SLOW_DOCTESTS:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: NOT_QUICK.isdisjoint(item.keywords))


# The state of each generator that belongs to a test module, and the counts of Keras' names, as after the import.
_GENERATORS: dict[np.random.Generator, Any] = {}
_NAMES: Counter[str] = Counter()
_COUNTS_OF_NAMES = "object_name_uids"


def pytest_collection_finish(session: pytest.Session) -> None:
    """Takes what was imported out of the sight of the garbage collector, which would search it again and again."""
    for module in {getattr(item, "module", None) for item in session.items}:
        for value in vars(module).values() if module else ():
            if isinstance(value, np.random.Generator):
                _GENERATORS[value] = value.bit_generator.state
    if "keras" in sys.modules:
        from keras.src.backend.common import global_state
        from tensorflow.python.eager.context import Context
        from tensorflow.python.util import tf_stack

        _NAMES.update(global_state.get_global_attribute(_COUNTS_OF_NAMES, {}))
        Context._set_global_seed = _seed_and_keep_kernels
        # Operations of graphs do not note where they were made: so deep in calls, that took a twentieth of the time.
        nowhere = tf_stack.extract_stack()
        tf_stack.extract_stack = lambda stacklevel=1: nowhere
    gc.collect()
    gc.freeze()
    # Rarely: graphs are made of many objects that stay.
    gc.set_threshold(50_000, 20)
    gc.enable()


@pytest.fixture(autouse=True)
def _tests_start_alike() -> None:
    """What a test draws, and how layers are named, does not depend on the tests before it, which differ by worker."""
    for generator, state in _GENERATORS.items():
        generator.bit_generator.state = state
    # Keras takes its default seeds from `random`.
    random.seed(0)
    np.random.seed(0)
    _count_names_anew()


def _seed_and_keep_kernels(context: Any, seed: int) -> None:
    """Seeds TensorFlow without emptying its cache of kernels, which took up to a quarter of the time of tests to fill.

    TensorFlow empties it to reset its random operations with a state. Ours and those of Keras have none.
    """
    context._seed, context._rng = seed, random.Random(seed)  # noqa: S311


def _count_names_anew() -> None:
    """Names layers as after the import: noise depends on names, and TensorFlow keeps a kernel for each variable's."""
    if "keras" in sys.modules:
        from keras.src.backend.common import global_state

        global_state.set_global_attribute(_COUNTS_OF_NAMES, _NAMES.copy())


@pytest.fixture(autouse=True, scope="module")
def _freeze_leftovers() -> Iterator[None]:
    """After each module, does the same with what `fit` leaves behind: traced graphs that Keras never frees."""
    # For the fixtures of the module, which come before those of its first test.
    _count_names_anew()
    yield
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists the tests that are too slow for `make test`; see the time budget in CONTRIBUTING.md."""
    reports = [report for of_outcome in terminalreporter.stats.values() for report in of_outcome]
    found = [
        (report.duration, report.nodeid)
        for report in reports
        if getattr(report, "when", "") == "call"
        and report.duration > PATIENCE
        and NOT_QUICK.isdisjoint(report.keywords)
    ]
    if found:
        terminalreporter.section(f"more than {PATIENCE:g} s, but not marked as slow or thorough")
        for seconds, name in sorted(found, reverse=True):
            terminalreporter.line(f"{seconds:6.1f} s  {name}")


@pytest.fixture(scope="session")
def eager_steps() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """A context: models run their steps eagerly unless `compile` is told how.

    Tracing a step takes as long as a dozen eager ones. For short trainings of which the graph is not what is tested.
    """
    import keras

    # Not of `keras.Model` itself: Keras does not compile a model that it loads if its class has another `compile`.
    owner = next(base for base in keras.Model.__mro__ if "compile" in vars(base))
    original = vars(owner)["compile"]

    @functools.wraps(original)
    def compile_eagerly(model: Any, *args: Any, **kwargs: Any) -> None:
        if kwargs.keys().isdisjoint({"run_eagerly", "jit_compile"}) and kwargs.get("steps_per_execution", 1) == 1:
            kwargs["run_eagerly"] = True
        original(model, *args, **kwargs)

    @contextlib.contextmanager
    def context() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(owner, "compile", compile_eagerly)
            yield

    return context


@pytest.fixture(scope="module")
def steps_run_eagerly(eager_steps: Callable[[], contextlib.AbstractContextManager[None]]) -> Iterator[None]:
    """The same for a whole module, by `pytestmark`."""
    with eager_steps():
        yield


class InjectedNoise:
    """Noise that is known to the test: NumPy draws by name, each made once and stored in `drawn`."""

    def __init__(self, seed: int = 0) -> None:
        self.drawn: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(seed)

    def normal(self, name: str, shape: Any) -> Any:
        """Standard normal noise."""
        return self._once(name, shape, self._rng.normal)

    def signs(self, name: str, shape: Any) -> Any:
        """Signs, exactly +1 or -1."""
        return self._once(name, shape, lambda size: self._rng.choice([-1.0, 1.0], size=size))

    def keep(self, name: str, shape: Any, probability: float) -> Any:
        """A mask of exact zeros and ones, which are 1 with the given probability."""
        return self._once(name, shape, lambda size: self._rng.random(size) < probability)

    def _once(self, name: str, shape: Any, draw: Callable[..., np.ndarray]) -> Any:
        import tensorflow as tf

        if name not in self.drawn:
            self.drawn[name] = draw(size=[int(n) for n in shape]).astype(np.float32)
        return tf.constant(self.drawn[name])


@pytest.fixture
def injected_noise() -> InjectedNoise:
    """A source of noise whose draws the test can read."""
    return InjectedNoise()


@pytest.fixture(scope="session")
def draw_outputs() -> Callable[..., np.ndarray]:
    """A function that returns the outputs of a layer for many independent draws, compiled into one loop."""
    import tensorflow as tf

    from tfp_bnn.core.noise import Noise, noise_scope

    def draw(layer: Any, inputs: Any, num_draws: int, training: bool, seed: int = 0) -> np.ndarray:
        if not layer.built:
            layer.build(inputs.shape)

        @tf.function(autograph=False)
        def run(x: Any) -> Any:
            root = Noise(tf.constant([seed, 0], tf.int32))

            def once(index: Any) -> Any:
                with noise_scope({id(layer): root.fold_in(index)}):
                    return layer(x, training=training)

            return tf.map_fn(once, tf.range(num_draws), fn_output_signature=layer.compute_dtype)

        return run(tf.nest.map_structure(tf.constant, inputs)).numpy()

    return draw


@pytest.fixture
def randomize() -> Callable[..., dict[str, np.ndarray]]:
    """A function that gives a built layer random parameters, so no two weights are equal.

    It returns them as float64 arrays: `kernel_loc`, `kernel_scale`, `bias_loc`, `bias_scale` (zeros where there is
    none).
    """

    def assign(
        layer: Any, seed: int = 0, scale: tuple[float, float] = (0.2, 0.8), bias_scale: tuple[float, float] = (0.2, 0.8)
    ) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        values = {}
        for name, bounds in (("kernel", scale), ("bias", bias_scale)):
            if name in layer.variational_weights:
                weight = layer.variational_weights[name]
                weight.assign_parameters(
                    {
                        **weight.parameters(),
                        "loc": rng.normal(size=weight.shape),
                        "scale": rng.uniform(*bounds, weight.shape),
                    }
                )
                values[f"{name}_loc"], values[f"{name}_scale"] = (
                    weight.parameters()["loc"],
                    weight.parameters()["scale"],
                )
            elif layer.bias is None:
                values["bias_loc"] = values["bias_scale"] = np.zeros(values["kernel_loc"].shape[-1])
            else:
                layer.bias.assign(rng.normal(size=layer.bias.shape))
                values["bias_loc"], values["bias_scale"] = np.asarray(layer.bias), np.zeros(layer.bias.shape)
        return {name: value.astype(np.float64) for name, value in values.items()}

    return assign


@pytest.fixture
def add_weight() -> Callable[..., Any]:
    """The `add_weight` function for float32 variables that a layer or model passes to a spec, without the layer."""
    import keras

    def add(name: str, shape: Any, initializer: Any, **kwargs: Any) -> Any:
        return keras.Variable(initializer, shape=tuple(shape), dtype="float32", name=name)

    return add


@pytest.fixture
def check_spec() -> Callable[..., None]:
    """A function that checks what every registered spec must have, with arguments other than the defaults.

    It takes values for the arguments that have no default.
    """
    import keras

    def check(registry: Any, name: str, **required: Any) -> None:
        cls = registry[name]
        assert "__doc__" in vars(cls), f"{cls} has no docstring"
        assert vars(cls)["__doc__"].strip()
        default = cls(**required)
        assert registry.get({"name": name, **required} if required else name) == default
        arguments = {key: _another(value) for key, value in default.get_config().items()}
        spec = cls(**arguments)
        assert spec.get_config() == arguments
        assert cls.from_config(arguments) == spec
        serialized = keras.saving.serialize_keras_object(spec)
        for form in (spec, {"name": name, **arguments}, serialized):
            made = registry.get(form)
            assert type(made) is cls
            assert made == spec
            assert hash(made) == hash(spec)
            assert repr(made) == repr(spec)
        assert registry.get(spec) is spec

    return check


def _another(value: Any) -> Any:
    """Returns a valid value that differs from the given one, if possible."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    return value / 2 if isinstance(value, float) else value


class Plugins:
    """Writes and installs plug-ins; see the fixture `plugins`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def write(self, **modules: str) -> None:
        """Writes modules by name. A package `p` has the modules `p__init` and `p__part`."""
        for name, text in modules.items():
            *packages, last = name.split("__")
            path = self.folder.joinpath(*packages)
            path.mkdir(exist_ok=True)
            (path / f"{'__init__' if last == 'init' else last}.py").write_text(textwrap.dedent(text), "utf-8")

    def install(self, distribution: str, **entries: str) -> None:
        """Makes a distribution with these entry points appear installed."""
        about = self.folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
        (about / "entry_points.txt").write_text(f"[tfp_bnn.plugins]\n{lines}")
        self.look_again()

    def name(self, *modules: str) -> None:
        """Names modules in the environment."""
        from tfp_bnn.core.plugins import VARIABLE

        self._monkeypatch.setenv(VARIABLE, ",".join(modules))

    def look_again(self) -> None:
        """Forgets which plug-ins are installed and loaded, as a new process would."""
        from tfp_bnn.core import plugins

        plugins._installed.cache_clear()
        self._monkeypatch.setattr(plugins, "_loaded", set())


@pytest.fixture
def registrations_undone() -> Iterator[None]:
    """Removes everything that the test registered, here and in Keras."""
    import keras

    import zoo.architectures
    import zoo.datasets
    import zoo.recipes  # noqa: F401
    from tfp_bnn.core.registry import Registry

    before = {registry: registry.contents() for registry in Registry.existing}
    at_keras = dict(keras.saving.get_custom_objects())
    yield
    for registry, contents in before.items():
        registry.replace_contents(*contents)
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(at_keras)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registrations_undone: None) -> Iterator[Plugins]:
    """Plug-ins in a folder on the path. What they register is removed after the test."""
    from tfp_bnn.core.plugins import VARIABLE

    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv(VARIABLE, raising=False)
    # Modules are rewritten within one second, which the bytecode cache cannot distinguish.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    modules = set(sys.modules)
    made = Plugins(folder, monkeypatch)
    made.look_again()
    yield made
    for name in set(sys.modules) - modules:
        path = getattr(sys.modules[name], "__file__", None) or ""
        if path.startswith((str(folder), str(OUTSIDE_PACKAGE))):
            del sys.modules[name]
    made.look_again()
