"""What a backward pass by rules met that has no rule: it is said, not passed over."""

import re

from torch import Tensor

# Of autograd's nodes, those of linear functions, of ReLU, and of what the rules have replaced.
_RULED = frozenset(
    """
    Add Sub Rsub Neg Mul Div Sum Mean Cumsum Where MaskedFill Convolution NativeBatchNorm
    T Mm Bmm Addmm Baddbmm Mv Dot View UnsafeView Alias Reshape ReshapeAlias Transpose Permute
    AsStrided Expand Squeeze Unsqueeze Select Slice Index IndexSelect Gather Flip Unbind Split
    SplitWithSizes UnsafeSplit Cat Stack Repeat Roll Copy CopySlices Clone ToCopy ConstantPadNd
    Diagonal Unfold Im2Col Embedding UpsampleBicubic2D UpsampleBilinear2D
    AvgPool2D AdaptiveAvgPool2D Amax Max MaxPool2DWithIndices
    Relu LeakyRelu PreluKernel Threshold Abs LinalgVectorNorm Norm
    ScaledDotProductFlashAttention ScaledDotProductFlashAttentionForCpu
    ScaledDotProductEfficientAttention ScaledDotProductCudnnAttention
    torch::autograd::AccumulateGrad torch::autograd::CopySlices ThroughZero Normalised
    """.split()
)


def unruled(outputs: Tensor) -> list[str]:
    """Functions on the way back from the outputs that are neither linear nor under a rule, such as
    "Tanh": their ordinary derivative is taken, and nothing is promised of the sum."""
    seen, waiting = set(), [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    names = {re.sub(r"Backward\d*$", "", node.name()).strip("_") for node in seen}
    return sorted(names - _RULED)
