"""A confusion matrix counts which classes are taken for which."""

from __future__ import annotations

import numpy as np
import pytest

from tfp_bnn.figures import confusion_matrix

LABELS = np.array([0, 1, 1, 2])
P = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0], [0.0, 0.3, 0.7]])


@pytest.mark.parametrize("labels", [LABELS, np.eye(3)[LABELS], LABELS.tolist()], ids=["integers", "one-hot", "list"])
def test_a_row_has_the_shares_of_a_class_in_every_form_of_labels(labels):
    panel = confusion_matrix(labels, P).axes[0]
    np.testing.assert_array_equal(panel.images[0].get_array(), [[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]])
    assert panel.get_title() == "3 of 4 examples are right (75.0 %)"
