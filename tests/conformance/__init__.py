"""What every normalization layer must do, on every backend: register one `LayerCase` and inherit `LayerConformance`.

class TestMyNorm(LayerConformance):
    case = LayerCase(create=MyNorm, oracle=my_oracle_in_loops)

A layer with side information also gives `side` (from the input), `trivial_side` (the one that makes it plain batch
normalization) and `groups` (the group of each value, -1 where it belongs to none). Whatever parameters and buffers a
layer has, the suite reads, randomises and compares them all.

    case            what a layer registers, and what it must refuse
    suite           `LayerConformance`, all of the following; what does not concern a layer is left out
    backends        on which backend and device a test runs, and how much of it
    mathematics     outputs, buffers and derivatives against plain loops, torch and finite differences
    properties      permutations, what lies outside all groups, constant channels
    bad_input       refusals before any change; one sample and none
    precision       large offsets, bfloat16
    life_cycle      state dicts, copies, pickles, `torch.compile`, policies
    tables          reading, randomising and comparing a layer's parameters and buffers
    instruments     taking the checks of annotations off where a user's program has none
    sabotage        a backward pass with one of its terms missing, for the test of the suite itself
"""

from conformance.case import BAD_INPUT, EPS, TOO_FEW_VALUES, LayerCase, Refusal, Side, no_side
from conformance.instruments import dataclasses_as_written, shapes_unchecked
from conformance.suite import LayerConformance
from conformance.tables import buffers, randomise, same

__all__ = [
    "BAD_INPUT",
    "EPS",
    "TOO_FEW_VALUES",
    "LayerCase",
    "LayerConformance",
    "Refusal",
    "Side",
    "buffers",
    "dataclasses_as_written",
    "no_side",
    "randomise",
    "same",
    "shapes_unchecked",
]
