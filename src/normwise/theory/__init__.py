"""Closed forms of what batch normalization does, one file a system, over floats and numpy arrays.

Nothing here imports the rest of the package: a prediction must not share code with what it predicts. Every function
is pure and broadcasts; every docstring gives the derivation, the reference, and what is idealised.

| file | system | what it predicts |
|---|---|---|
| residual | residual networks, pre- and post-activation | growth of the gradient's squared norm with depth |
| channels | convolutional networks | output of per-channel and across-channel statistics, at any correlation |
| sequence | recurrent networks | bias of pooled statistics under drift |
| causality | autoregressive models, Transformers | how far the future reaches back, what it is worth; training against evaluation |
| graph | graph networks, any correlated batch | batch, running and merged variance at correlation rho |
| adversarial | discriminators; conditional generators | how far fakes move a real logit; class-wise scale and shift |
| mixup | Mixup | covariance, Hessian spectrum, variance in evaluation |
| small_batch | small batches and running averages | errors of mean and variance, effective sizes, memory |
| mixture | (used by several) | mean and variance of a mixture of groups |

>>> from normwise.theory import graph
>>> graph.eval_inflation(0.75)  # the output variance in evaluation, of nodes correlated by .75
4.0
"""
