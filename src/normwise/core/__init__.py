"""Pure tensor functions: moments, groupings, the differentiable pipeline, running estimates, kernels."""
