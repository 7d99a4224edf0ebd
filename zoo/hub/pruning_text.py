"""What a card says of how a model was pruned."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

_CRITERIA = {
    "signal_to_noise": "signal-to-noise ratio of the weights",
    "kl": "KL between posterior and prior of the weights",
    "magnitude": "magnitude of the weights",
    "l1": "magnitude of the weights (L1)",
}


def pruning_section(how: Mapping[str, Any]) -> str:
    """Returns Markdown that says what was removed, and by which command.

    Args:
        how: Description written by `tfp-bnn prune`.
    """
    what = "units and filters" if how["units"] else "weights"
    among = "all layers together" if how["scope"] == "global" else "every layer"
    of_layers = "" if how["layers"] is None else f" ({', '.join(how['layers'])} only)"
    rounds = f" in {how['rounds']} rounds, each" if how["rounds"] > 1 else ", and then"
    after = f"{rounds} trained for {how['epochs']} epochs" if how["epochs"] else ", without training after it"
    units = ", ".join(f"{layer} {number}" for layer, number in how["layer_units"].items())
    lines = [
        f"Pruned from `{how['source']}`: {how['fraction']:.4g} of the {what} of {among}{of_layers}, those of the least "
        f"{_CRITERIA.get(how['by'], how['by'])}{after}. {how['weights_kept']:,} of {how['weights_before']:,} weights "
        "are left." + (f" Units that are left: {units}." if units else ""),
        "",
        f"`{pruning_command(how)}` does it again.",
    ]
    return "\n".join(lines) + "\n"


def pruning_command(how: Mapping[str, Any]) -> str:
    """Returns the command line that repeats a pruning."""
    words = ["tfp-bnn", "prune", how["source"], "--fraction", repr(how["fraction"]), "--by", how["by"]]
    words += ["--scope", how["scope"], *(["--units"] if how["units"] else [])]
    words += [word for layer in how["layers"] or [] for word in ("--layer", layer)]
    if how["epochs"]:
        words += ["--finetune-epochs", str(how["epochs"]), "--learning-rate", repr(how["learning_rate"])]
        words += ["--rounds", str(how["rounds"]), "--seed", str(how["seed"])]
    words += ["--trust"] if how["trust"] else []
    return shlex.join([*words, "--out", "FOLDER"])
