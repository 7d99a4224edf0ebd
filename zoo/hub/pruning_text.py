"""What a card says of how a model was pruned."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

_CRITERIA = {
    "signal_to_noise": "signal-to-noise ratio of the weights",
    "kl": "KL between posterior and prior of the weights",
    "magnitude": "magnitude of the weights",
    # In older descriptions.
    "l1": "magnitude of the weights (L1)",
}


def pruning_section(how: Mapping[str, Any]) -> str:
    """Returns Markdown that says what was removed, and by which command.

    Args:
        how: Description written by `tfp-bnn prune`. Older ones say nothing of the data.
    """
    what = "units and filters" if how["units"] else "weights"
    among = "all layers together" if how["scope"] == "global" else "every layer"
    of_layers = "" if how["layers"] is None else f" ({', '.join(how['layers'])} only)"
    # Older descriptions have one number of epochs for all rounds, and no `below`.
    between = how.get("epochs_between", how["epochs"])
    rounds = f" in {how['rounds']} rounds, with {between} epochs of training between them" if how["rounds"] > 1 else ""
    data = how.get("data")
    on = "" if data is None else f" on `{data}`"
    after = f", and then trained for {how['epochs']} epochs{on}" if how["epochs"] else ", without training after it"
    units = ", ".join(f"{layer} {number}" for layer, number in how["layer_units"].items())
    below = how.get("below")
    worth = _CRITERIA.get(how["by"], how["by"])
    share = f"{how['fraction']:.4g} of the" if below is None else "the"
    which = f"those of the least {worth}" if below is None else f"those below {below:g} in {worth}"
    lines = [
        f"Pruned from `{how['source']}`: {share} {what} of {among}{of_layers}, {which}{rounds}{after}. "
        f"{how['weights_kept']:,} of {how['weights_before']:,} weights are left."
        + (f" Units that are left: {units}." if units else "")
        + (f" Measured{on}." if on else ""),
        "",
        "No command does it again, because the data were files or in memory."
        if data is not None and how["dataset"] is None
        else f"`{pruning_command(how)}` does it again.",
    ]
    return "\n".join(lines) + "\n"


def pruning_command(how: Mapping[str, Any]) -> str:
    """Returns the command line that repeats a pruning."""
    below = how.get("below")
    how_many = ["--fraction", repr(how["fraction"])] if below is None else ["--below", repr(below)]
    words = ["tfp-bnn", "prune", how["source"], *how_many, "--by", how["by"]]
    words += ["--scope", how["scope"], *(["--units"] if how["units"] else [])]
    words += [word for layer in how["layers"] or [] for word in ("--layer", layer)]
    if how["epochs"]:
        words += ["--finetune-epochs", str(how["epochs"]), "--learning-rate", repr(how["learning_rate"])]
        words += ["--rounds", str(how["rounds"]), "--seed", str(how["seed"])]
        words += ["--epochs-between", str(how.get("epochs_between", how["epochs"]))] if how["rounds"] > 1 else []
    words += ["--dataset", how["dataset"]] if how.get("dataset") is not None else []
    words += ["--trust"] if how["trust"] else []
    return shlex.join([*words, "--out", "FOLDER"])
