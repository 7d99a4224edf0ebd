"""Writes `archive.pth` and `sequence.pth` with PyTorch (2.13.0), for `tests/zoo/core/test_torch_file.py`."""

from __future__ import annotations

from pathlib import Path

import torch

HERE = Path(__file__).parent

if __name__ == "__main__":
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    for number, parameter in enumerate(net.parameters()):
        parameter.data = torch.arange(parameter.numel(), dtype=torch.float32).reshape(parameter.shape) + number
    state = net.state_dict()
    whole = torch.arange(24.0).reshape(4, 6)
    # Two views of one storage, other dtypes, no axis, no value.
    state |= {"transposed": whole.T, "part": whole[1:3, ::2], "half": torch.tensor([1.5, -2.0]).half()}
    state |= {"double": torch.tensor(0.1, dtype=torch.float64), "empty": torch.zeros(0, 3)}
    state["parameter"] = torch.nn.Parameter(torch.tensor([3.0]))
    torch.save(state, HERE / "archive.pth")
    torch.save(state, HERE / "sequence.pth", _use_new_zipfile_serialization=False)
