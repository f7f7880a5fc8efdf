"""The four kernel functions every layer is made of, behind one contract.

    reduce(x, cells)                                       -> Moments, tables (g, c)
    apply(x, scale, shift, cells, residual, rectify)       -> y  = x * scale[g] + shift[g] (+ residual, rectified)
    reduce_backward(dy, x, mean, cells, gate)              -> S = sum dy,  T = sum dy * (x - mean[g])
    apply_backward(dy, x, a, b, d, cells, gate)            -> dx = dy * a[g] + x * b[g] + d[g]

Tensors are `(n, c, l)`, tables `(g, c)` in the accumulation dtype; masked positions enter no sum and receive 0.
A gate `(scale, shift)` is the backward of `rectify`: dy counts where `x * scale[g] + shift[g]` is not `<= 0`.
Backends: `reference` (torch, any device), `cpu` (numba, with its loops in `loops`), `cuda` (triton); `dispatch` picks.
"""

from normwise.core.kernels.dispatch import Backend, current_backend, use_backend

__all__ = ["Backend", "current_backend", "use_backend"]
