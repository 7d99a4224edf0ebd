"""Bayesian layers for Keras 3."""

from tfp_bnn.layers.attention import (
    MultiHeadAttentionFlipout,
)
from tfp_bnn.layers.base import (
    VariationalLayer,
)
from tfp_bnn.layers.convolution import (
    Conv1DFlipout,
    Conv1DLocalReparameterization,
    Conv1DReparameterization,
    Conv2DFlipout,
    Conv2DLocalReparameterization,
    Conv2DReparameterization,
    Conv3DFlipout,
    Conv3DLocalReparameterization,
    Conv3DReparameterization,
    Convolution1DFlipout,
    Convolution1DLocalReparameterization,
    Convolution1DReparameterization,
    Convolution2DFlipout,
    Convolution2DLocalReparameterization,
    Convolution2DReparameterization,
    Convolution3DFlipout,
    Convolution3DLocalReparameterization,
    Convolution3DReparameterization,
)
from tfp_bnn.layers.dense import (
    DenseFlipout,
    DenseLocalReparameterization,
    DenseReparameterization,
)
from tfp_bnn.layers.depthwise_convolution import (
    DepthwiseConv2DFlipout,
    DepthwiseConvolution2DFlipout,
    SeparableConv2DFlipout,
    SeparableConvolution2DFlipout,
)
from tfp_bnn.layers.dropout import (
    MCDropout,
)
from tfp_bnn.layers.einsum_dense import (
    EinsumDenseFlipout,
    EinsumDenseReparameterization,
)
from tfp_bnn.layers.embedding import (
    EmbeddingReparameterization,
)
from tfp_bnn.layers.filter_response_normalization import (
    FilterResponseNormalization,
    FilterResponseNormalizationReparameterization,
)
from tfp_bnn.layers.hierarchical import (
    HierarchicalDenseReparameterization,
)
from tfp_bnn.layers.normalization import (
    GroupNormalizationReparameterization,
    LayerNormalizationReparameterization,
)
from tfp_bnn.layers.recurrent import (
    GRUFlipout,
    LSTMFlipout,
)
from tfp_bnn.layers.stochastic import (
    StochasticLayer,
)
from tfp_bnn.layers.transposed_convolution import (
    Conv1DTransposeFlipout,
    Conv2DTransposeFlipout,
    Convolution1DTransposeFlipout,
    Convolution2DTransposeFlipout,
)

__all__ = [
    "Conv1DFlipout",
    "Conv1DLocalReparameterization",
    "Conv1DReparameterization",
    "Conv1DTransposeFlipout",
    "Conv2DFlipout",
    "Conv2DLocalReparameterization",
    "Conv2DReparameterization",
    "Conv2DTransposeFlipout",
    "Conv3DFlipout",
    "Conv3DLocalReparameterization",
    "Conv3DReparameterization",
    "Convolution1DFlipout",
    "Convolution1DLocalReparameterization",
    "Convolution1DReparameterization",
    "Convolution1DTransposeFlipout",
    "Convolution2DFlipout",
    "Convolution2DLocalReparameterization",
    "Convolution2DReparameterization",
    "Convolution2DTransposeFlipout",
    "Convolution3DFlipout",
    "Convolution3DLocalReparameterization",
    "Convolution3DReparameterization",
    "DenseFlipout",
    "DenseLocalReparameterization",
    "DenseReparameterization",
    "DepthwiseConv2DFlipout",
    "DepthwiseConvolution2DFlipout",
    "EinsumDenseFlipout",
    "EinsumDenseReparameterization",
    "EmbeddingReparameterization",
    "FilterResponseNormalization",
    "FilterResponseNormalizationReparameterization",
    "GRUFlipout",
    "GroupNormalizationReparameterization",
    "HierarchicalDenseReparameterization",
    "LSTMFlipout",
    "LayerNormalizationReparameterization",
    "MCDropout",
    "MultiHeadAttentionFlipout",
    "SeparableConv2DFlipout",
    "SeparableConvolution2DFlipout",
    "StochasticLayer",
    "VariationalLayer",
]
