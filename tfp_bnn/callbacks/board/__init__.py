"""The TensorBoard log of a training: `BayesianTensorBoard`, its tags, figures and dashboard."""

from tfp_bnn.callbacks.board.bayesian_tensorboard import BayesianTensorBoard

__all__ = ["BayesianTensorBoard"]
