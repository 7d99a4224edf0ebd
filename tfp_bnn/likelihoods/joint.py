"""The joint likelihood: several outputs of one network, each with a likelihood of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from tfp_bnn.core.arguments import is_positive
from tfp_bnn.likelihoods.base import LIKELIHOODS, Likelihood, TargetKind, Weights

_Values = Mapping[str, Any] | Sequence[Any]


@LIKELIHOODS.register("joint")
class Joint(Likelihood):
    """p(y | outputs) = prod_h p_h(y_h | outputs_h): the targets of the heads are independent given the weights.

    The network has several outputs, the heads, as a dict or a list: a class and a number, or a class for the image and
    one for each pixel. Targets, metrics and sample weights have the same structure. All heads see one draw of the
    weights, so their errors are dependent in the predictive. Models also take the heads alone, as in
    `likelihood={"class": "categorical", "value": "normal"}`, or a list of likelihoods for a list of outputs. (If a head
    is called "name" or "class_name", pass an object of this class.)

    The log-likelihood of an example in training, and so `nll`, is

        sum_h weight_h * log p_h(y_h | outputs_h),   in nats

    A weight other than 1 tempers a head: its likelihood is p_h to the power of weight_h, as if each of its targets had
    been seen that often, so the posterior is no longer that of the data. Metrics, and the predictive with all its
    scores, are those of the untempered likelihood.

    A head whose likelihood has `missing` may lack all targets of a batch, as long as another has some.

    Args:
        heads: The likelihoods of the outputs by name, each a name, a config or an object; or a list of them for a list
            of outputs. The heads of a list are named after the outputs of a functional model, as Keras does, and "0",
            "1" and so on elsewhere. Names have no `/` and no `.`.
        weights: Weight of each head, a number > 0. Default: 1. Heads may be left out.

    Raises:
        ValueError: If there are no heads, a head is itself joint, or a name or a weight is not valid.

    References:
        Kendall et al. 2018, Multi-Task Learning Using Uncertainty to Weigh Losses, https://arxiv.org/abs/1705.07115,
        for the scales that heads learn; Bissiri et al. 2016, A General Framework for Updating Belief Distributions,
        https://arxiv.org/abs/1306.6430, for power likelihoods
    """

    # What is made for one of the two tasks cannot take it.
    task = "joint"  # type: ignore[assignment]

    def __init__(self, heads: _Values, weights: _Values | None = None) -> None:
        super().__init__()
        named = heads if isinstance(heads, Mapping) else {str(index): head for index, head in enumerate(heads)}
        if not named:
            raise ValueError("A joint likelihood needs at least one head, as in {'class': 'categorical'}.")
        for name in named:
            if not isinstance(name, str) or not name or "/" in name or "." in name:
                raise ValueError(f"The name of a head must be a text without '/' and '.', but got {name!r}.")
        self.heads = {name: _of_one_output(name, head) for name, head in named.items()}
        given = {} if weights is None else self.by_head(weights, "`weights` of the likelihood 'joint'", partly=True)
        for name, weight in given.items():
            if not is_positive(weight):
                raise ValueError(f"The weight of the head {name!r} must be a number > 0, but got {weight!r}.")
        self.weights = {name: float(given.get(name, 1.0)) for name in self.heads}

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor; the heads as configs."""
        heads = {name: {"name": LIKELIHOODS.name_of(head), **head.get_config()} for name, head in self.heads.items()}
        return {"heads": heads, "weights": self.weights}

    # === Heads ===

    def by_head(self, values: Any, what: str, partly: bool = False) -> dict[str, Any]:
        """The values of a dict, or of a list in the order of the heads, by the name of the head.

        Args:
            values: A dict, list or tuple with a value for each head.
            what: What the values are, for messages.
            partly: Whether heads may be left out of a dict.

        Raises:
            ValueError: If a head is missing, or there are others. The message names them.
        """
        names = list(self.heads)
        if isinstance(values, Mapping):
            left_out = [] if partly else [name for name in names if values.get(name) is None]
            others = [name for name in values if name not in self.heads]
            if not left_out and not others:
                return {name: values[name] for name in names if name in values}
            wrong = [f"{word} {found}" for word, found in (("missing", left_out), ("unexpected", others)) if found]
            got = f"the keys {list(values)}: {', '.join(wrong)}"
        elif isinstance(values, list | tuple):
            if len(values) == len(names):
                return dict(zip(names, values, strict=True))
            got = f"a {type(values).__name__} of {len(values)}"
        else:
            shape = getattr(values, "shape", None)
            got = type(values).__name__ if shape is None else f"one array or tensor of shape {tuple(shape)}"
        raise ValueError(
            f"{what}: the likelihood has the heads {names}. Expected a dict with these keys, or a list in this order, "
            f"but got {got}."
        )

    def weights_by_head(self, weights: Weights) -> dict[str, Weights]:
        """The learned parameters of each head, by its name, under the names that the likelihood of the head uses."""
        return {
            name: {
                role.removeprefix(f"{name}."): value for role, value in weights.items() if role.startswith(f"{name}.")
            }
            for name in self.heads
        }

    def add_weights(self, add_weight: Callable[..., keras.Variable]) -> dict[str, keras.Variable]:
        """Creates the variables of all heads, by `<head>.<role>`."""

        def of_head(head: str) -> Callable[..., keras.Variable]:
            return lambda name, **kwargs: add_weight(name=f"{head}.{name}", **kwargs)

        return _joined({name: head.add_weights(of_head(name)) for name, head in self.heads.items()})

    def parameters(self, weights: Weights) -> dict[str, np.ndarray]:
        """The learned parameters of all heads in natural units, by `<head>.<name>`."""
        of_heads = self.weights_by_head(weights)
        return _joined({name: head.parameters(of_heads[name]) for name, head in self.heads.items()})

    def assign_parameters(self, weights: Mapping[str, keras.Variable], values: Mapping[str, np.ndarray]) -> None:
        """Sets the learned parameters of all heads; the inverse of `parameters`."""
        variables, of_heads = self.weights_by_head(weights), self.weights_by_head(values)
        for name, head in self.heads.items():
            head.assign_parameters(variables[name], of_heads[name])

    # === Examples ===

    def without_missing(self, y: Any) -> dict[str, Any]:
        """The targets of each head with 0 in place of those that are missing."""
        return {name: self.heads[name].without_missing(of_head) for name, of_head in self.by_head(y, "`y`").items()}

    def check_examples(self, y: Any, output_shape: Any) -> None:
        """Refuses targets that cannot have come from their heads, before the first step.

        Args:
            y: Arrays of targets by head.
            output_shape: Shape of the output of one example by head.

        Raises:
            ValueError: As the likelihoods of the heads, with the name of the head.
        """
        targets = self.by_head(y, "`y`")
        shapes = self.by_head(output_shape, "The shapes of the outputs")
        present = [name for name in self.heads if self.heads[name].has_targets(np.asarray(targets[name]))]
        for name in present or self.heads:
            try:
                self.heads[name].check_examples(targets[name], shapes[name])
            except ValueError as error:
                raise ValueError(f"The head {name!r}: {error}") from error

    def log_likelihood(
        self,
        y: Any,
        outputs: Any,
        weights: Weights,
        sample_weight: Any = None,
        *,
        draws: bool = False,
        by_position: bool = False,
        may_be_empty: bool = False,
    ) -> tf.Tensor:
        """The weighted sum of the log-likelihoods of the heads, in nats, `(batch,)`, or `(S, batch)` with `draws`.

        Args:
            y: Targets by head.
            outputs: Raw outputs by head.
            weights: Learned parameters of all heads.
            sample_weight: One array for all heads, or a dict or list of them by head, of which some may be left out.
            draws: Whether the outputs have an axis of draws before the others.
            by_position: Must be False: heads may have different positions.
            may_be_empty: Makes no difference: it is true of each head.
        """
        if by_position:
            raise ValueError("The heads of a joint likelihood may have different positions. Ask one of its `heads`.")
        targets, factors = self.by_head(y, "`y`"), self._factors(sample_weight)
        of_heads, learned = self.by_head(outputs, "The outputs of the model"), self.weights_by_head(weights)
        terms = []
        for name, head in self.heads.items():
            found = head.log_likelihood(
                targets[name], of_heads[name], learned[name], factors.get(name), draws=draws, may_be_empty=True
            )
            terms.append(self.weights[name] * found)
        return tf.add_n(terms)

    def metric_rows(
        self, y: Any, outputs: Any, weights: Weights, sample_weight: Any, may_be_empty: bool = False
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """What the Keras metrics of each head receive, by head; see `Examples.metric_rows`."""
        targets, factors = self.by_head(y, "`y`"), self._factors(sample_weight)
        of_heads, learned = self.by_head(outputs, "The outputs of the model"), self.weights_by_head(weights)
        rows = {
            name: head.metric_rows(targets[name], of_heads[name], learned[name], factors.get(name), may_be_empty=True)
            for name, head in self.heads.items()
        }
        of_rows, means, weights_of_rows = ({name: row[part] for name, row in rows.items()} for part in range(3))
        return of_rows, means, weights_of_rows

    # === Scores ===

    def target_kind(self, num_outputs: int | None) -> TargetKind:
        """`"heads"`: each has a kind of its own."""
        return "heads"

    def score_names(self, num_outputs: int | None) -> tuple[str, ...]:
        """`nll` of all heads, and the scores of each, such as `class/accuracy`."""
        of_heads = [f"{name}/{score}" for name, head in self.heads.items() for score in head.score_names(None)]
        return ("nll", *of_heads)

    def scores(self, predictive: Any, y: Any = None) -> dict[str, float]:
        """`nll` of all heads together, and the scores of each, such as `class/accuracy`; see `predictive.score`.

        Args:
            predictive: Predictives by head, with `log_prob`, such as a `JointPredictive`.
            y: Targets by head, or None. A head without any target has only the scores of uncertainty.
        """
        targets = {} if y is None else self.by_head(y, "`y`")
        found = {} if y is None else {"nll": float(-predictive.log_prob(y).mean(dtype=np.float64))}
        for name, head in self.heads.items():
            of_head = targets.get(name)
            if of_head is not None and not head.has_targets(np.asarray(of_head)):
                of_head = None
            found |= {f"{name}/{key}": value for key, value in head.scores(predictive[name], of_head).items()}
        return found

    def chance_nll_of_example(self, output_shape: Any) -> float | None:
        """The weighted sum of those of the heads; None if one of them has none."""
        total = 0.0
        for name, shape in self.by_head(output_shape, "The shapes of the outputs").items():
            of_head = self.heads[name].chance_nll_of_example(shape)
            if of_head is None:
                return None
            total += self.weights[name] * of_head
        return total

    # === What only a single output has ===

    def distribution(self, outputs: Any, weights: Weights) -> NoReturn:
        """Refused: each head has a distribution of its own."""
        self._refuse()

    def num_outputs_for(self, y: Any, num_classes: int | None = None) -> NoReturn:
        """Refused: each head needs its own number of outputs."""
        self._refuse()

    def in_target_units(self, outputs: Any, mean: Sequence[float], scale: Sequence[float]) -> NoReturn:
        """Refused: each head has its own unit."""
        self._refuse()

    def training_metrics(self, num_outputs: int) -> NoReturn:
        """Refused: each head has its own metrics."""
        self._refuse()

    def _probe(self, num_outputs: int) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        (name, *_) = self.heads
        raise ValueError(
            f"This is for a likelihood of one output, but a joint likelihood has the heads {list(self.heads)}. Ask "
            f"one of them, as in likelihood.heads[{name!r}] or predictive[{name!r}]."
        )

    # === Internals ===

    def _factors(self, sample_weight: Any) -> dict[str, Any]:
        """Sample weights by head; a single array is for all heads."""
        if sample_weight is None:
            return {}
        if isinstance(sample_weight, Mapping | list | tuple):
            return self.by_head(sample_weight, "`sample_weight`", partly=True)
        return dict.fromkeys(self.heads, sample_weight)


@LIKELIHOODS.converts(dict)
@LIKELIHOODS.converts(list)
@LIKELIHOODS.converts(tuple)
def _joint_of(heads: _Values) -> Joint:
    return Joint(heads)


def _of_one_output(name: str, head: Any) -> Likelihood:
    # A structure is not followed any deeper.
    is_spec = not isinstance(head, Mapping | list | tuple) or not {"name", "class_name"}.isdisjoint(head)
    likelihood = LIKELIHOODS.get(head) if is_spec else None
    if likelihood is None or likelihood.heads:
        raise ValueError(f"The head {name!r} is a joint likelihood itself. List all heads in one.")
    return likelihood


def named_after_outputs(likelihood: Likelihood, names: Sequence[str]) -> Likelihood:
    """A joint likelihood for a list of outputs with names, in their order; any other likelihood as it is.

    Args:
        likelihood: Likelihood of a functional model with a list of outputs.
        names: The names that Keras gives the outputs.

    Raises:
        ValueError: If the heads have names, which are not those of the outputs.
    """
    if not isinstance(likelihood, Joint) or len(set(names)) < len(names):
        return likelihood
    heads = likelihood.heads
    if list(heads) == [str(index) for index in range(len(names))]:
        named = dict(zip(names, heads, strict=True))
    elif set(heads) == set(names):
        named = {name: name for name in names}
    else:
        raise ValueError(
            f"The likelihood has the heads {list(heads)}, but the outputs of the model are {list(names)}. Name the "
            "last layers so, give the outputs as a dict, or give a list of likelihoods."
        )
    return Joint(
        {name: heads[head] for name, head in named.items()},
        {name: likelihood.weights[head] for name, head in named.items()},
    )


def _joined(of_heads: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{name}.{role}": value for name, values in of_heads.items() for role, value in values.items()}
