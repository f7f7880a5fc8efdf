"""The four kernel functions every layer is made of, behind one contract.

    reduce(x, cells)                        -> Moments, tables (g, c)
    apply(x, scale, shift, cells)           -> y  = x * scale[g] + shift[g]
    reduce_backward(dy, x, mean, cells)     -> S = sum dy,  T = sum dy * (x - mean[g])
    apply_backward(dy, x, a, b, d, cells)   -> dx = dy * a[g] + x * b[g] + d[g]

Tensors are `(n, c, l)`, tables `(g, c)` in the accumulation dtype; masked positions enter no sum and receive 0.
`dispatch` picks the backend.
"""

from normwise.core.kernels.dispatch import Backend, current_backend, use_backend

__all__ = ["Backend", "current_backend", "use_backend"]
