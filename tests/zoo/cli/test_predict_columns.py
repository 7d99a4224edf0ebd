"""`predict` matches the columns of a CSV file by name, and warns of values that cannot be right."""

from __future__ import annotations

import numpy as np
import pytest

IRIS = np.array([[5.1, 3.5, 1.4, 0.2], [7.0, 3.2, 4.7, 1.4], [6.3, 3.3, 6.0, 2.5]])
COLUMNS = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)"


@pytest.mark.filterwarnings("always::tfp_bnn.UnlikelyInputsWarning")
def test_predict_reads_columns_by_name_and_warns_of_values_that_cannot_be_right(tmp_path, tfp_bnn):
    def predicted(header, x):
        path = tmp_path / "x.csv"
        path.write_text(header + "\n" + "\n".join(",".join(map(str, row)) for row in x))
        code, output, errors = tfp_bnn("predict", "mlp_flipout.iris", path, "--num-samples", 20)
        assert code == 0
        return [line.split(",")[1] for line in output.splitlines()[1:]], errors

    right = ["setosa", "versicolor", "virginica"]
    assert predicted(COLUMNS, IRIS)[0] == right
    names = COLUMNS.split(",")
    order = [3, 0, 2, 1]
    flowers, errors = predicted(",".join(["species", *(names[i] for i in order)]), [["?", *row[order]] for row in IRIS])
    assert flowers == right
    assert "warning" not in errors
    for header in ("a,b,c,d", "1,2,3,4"):
        _, errors = predicted(header, IRIS[:, ::-1])
        assert "tfp-bnn: warning: The inputs of 'mlp_flipout' are not like" in errors
        assert "order of the columns" in errors


@pytest.mark.parametrize("header", ["petal width (cm),b,c,d", COLUMNS.replace("length", "width")])
def test_a_header_that_has_only_some_of_the_columns_is_refused(header, tmp_path, tfp_bnn):
    (tmp_path / "x.csv").write_text(f"{header}\n1,2,3,4\n")
    code, _, errors = tfp_bnn("predict", "mlp_flipout.iris", tmp_path / "x.csv")
    assert code == 2
    assert "the model needs 'sepal length (cm)' exactly once" in errors
