"""Small tables from scikit-learn, with raw columns, because models contain their own normalization."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import datasets

from zoo.datasets.base import DATASETS, Dataset, split_rows

# Of the UCI Machine Learning Repository.
_UCI = "CC BY 4.0"


@DATASETS.register("iris")
def iris() -> Dataset:
    """Three species of iris from four measurements, 150 rows."""
    return _classification(
        "iris",
        datasets.load_iris(),
        description="Three species of iris, 50 flowers of each, from four measurements of sepal and petal in cm.",
        source="R. A. Fisher, The use of multiple measurements in taxonomic problems, 1936; via "
        "sklearn.datasets.load_iris.",
        license=_UCI,
        citation="R. A. Fisher, Iris, UCI Machine Learning Repository, 1936, https://doi.org/10.24432/C56C76",
    )


@DATASETS.register("wine")
def wine() -> Dataset:
    """Three cultivars of wine from 13 chemical measurements, 178 rows."""
    return _classification(
        "wine",
        datasets.load_wine(),
        description="Three cultivars of wine grown in one region of Italy, from 13 chemical measurements.",
        source="M. Forina et al., PARVUS, 1988, UCI Machine Learning Repository; via sklearn.datasets.load_wine.",
        license=_UCI,
        citation="S. Aeberhard, M. Forina, Wine, UCI Machine Learning Repository, 1992, "
        "https://doi.org/10.24432/C5PC7J",
    )


@DATASETS.register("breast_cancer")
def breast_cancer() -> Dataset:
    """Malignant or benign from 30 measurements of cell nuclei, 569 rows."""
    return _classification(
        "breast_cancer",
        datasets.load_breast_cancer(),
        description="Malignant or benign breast tumours, from 30 measurements of cell nuclei in images of fine-needle "
        "aspirates.",
        source="W. N. Street, W. H. Wolberg, O. L. Mangasarian, Nuclear feature extraction for breast tumor "
        "diagnosis, 1993, UCI Machine Learning Repository; via sklearn.datasets.load_breast_cancer.",
        license=_UCI,
        citation="W. Wolberg, O. Mangasarian, N. Street, W. Street, Breast Cancer Wisconsin (Diagnostic), UCI Machine "
        "Learning Repository, 1993, https://doi.org/10.24432/C5DW2B",
    )


@DATASETS.register("diabetes")
def diabetes() -> Dataset:
    """Progression of diabetes after a year from ten measurements, 442 rows; regression."""
    table = datasets.load_diabetes(scaled=False)
    return Dataset(
        name="diabetes",
        task="regression",
        **split_rows(table.data.astype(np.float32), table.target.reshape(-1, 1).astype(np.float32), stratify=False),
        feature_names=tuple(table.feature_names),
        class_names=None,
        description="Progression of diabetes one year after baseline (25 to 346), from age, sex, body mass index, "
        "blood pressure and six blood serum measurements in their raw units.",
        source="B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, Least angle regression, 2004; via "
        "sklearn.datasets.load_diabetes.",
        citation="B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, Least angle regression, The Annals of Statistics "
        "32(2), 407-499, 2004, https://doi.org/10.1214/009053604000000067",
    )


def _classification(name: str, table: Any, *, description: str, source: str, license: str, citation: str) -> Dataset:
    return Dataset(
        name=name,
        task="classification",
        **split_rows(table.data.astype(np.float32), table.target.astype(np.int64), stratify=True),
        feature_names=tuple(str(feature) for feature in table.feature_names),
        class_names=tuple(str(label) for label in table.target_names),
        description=description,
        source=source,
        license=license,
        citation=citation,
    )
