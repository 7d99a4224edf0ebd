"""Makes `reference.npz`: a trained net, its data, and what laplace-torch says of it.

Run in an environment with torch's CPU build:

    pip install torch==2.13.0 scikit-learn
    pip install --no-deps laplace-torch==0.3 curvlinops-for-pytorch==3.0.1 backpack-for-pytorch==1.7.1 \
        asdfghjkl torchmetrics lightning-utilities einconv opt_einsum einops unfoldNd tqdm linear_operator
    python reference.py

The last layer has no bias: laplace-torch gives it a Kronecker block of its own, and tfp_bnn takes it as one more input.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from laplace import Laplace
from laplace.curvature import BackPackEF, BackPackGGN
from sklearn.datasets import load_iris
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

PRECISION = 2.0
# Subset of weights, structure, backend.
CASES = {
    "last_full": ("last_layer", "full", BackPackGGN),
    "last_kronecker": ("last_layer", "kron", BackPackGGN),
    "last_diagonal": ("last_layer", "diag", BackPackGGN),
    "all_full": ("all", "full", BackPackGGN),
    "all_diagonal": ("all", "diag", BackPackGGN),
    "all_diagonal_fisher": ("all", "diag", BackPackEF),
}


def trained_net(x: torch.Tensor, y: torch.Tensor) -> nn.Sequential:
    """A small net, trained to its most probable weights under the prior N(0, 1 / PRECISION)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3, bias=False))
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        penalty = sum((weight**2).sum() for weight in net.parameters())
        value = nn.functional.cross_entropy(net(x), y, reduction="sum") + PRECISION / 2 * penalty
        value.backward()
        return value

    optimizer.step(loss)
    return net


def main() -> None:
    """Writes the file."""
    torch.set_num_threads(1)
    features, labels = load_iris(return_X_y=True)
    features = ((features - features.mean(axis=0)) / features.std(axis=0)).astype(np.float32)
    x, y = torch.tensor(features), torch.tensor(labels)
    net = trained_net(x, y)
    found: dict[str, np.ndarray] = {"x": features, "y": labels}
    for name, weight in zip(("hidden/kernel", "hidden/bias", "outputs/kernel"), net.parameters(), strict=True):
        found[name] = weight.detach().numpy().T
    loader = DataLoader(TensorDataset(x, y), batch_size=len(x))
    for case, (subset, structure, backend) in CASES.items():
        found_by = Laplace(net, "classification", subset, structure, prior_precision=PRECISION, backend=backend)
        found_by.fit(loader)
        found[f"{case}/probabilities"] = found_by(x, pred_type="glm", link_approx="probit").detach().numpy()
        found[f"{case}/log_marginal_likelihood"] = found_by.log_marginal_likelihood().detach().numpy()
    np.savez_compressed(Path(__file__).with_name("reference.npz"), **found)


if __name__ == "__main__":
    main()
