"""New modules hang wherever the old ones hung."""

from torch import nn

from normwise.models.replace import replace_modules


def test_every_place_gets_the_new_module():
    old, new, other = nn.ReLU(), nn.Tanh(), nn.Identity()
    model = nn.ModuleDict({"a": old, "b": nn.Sequential(other, old, old)})
    assert replace_modules(model, [(old, new)]) is model
    assert model["a"] is model["b"][1] is model["b"][2] is new
    assert model["b"][0] is other


def test_a_replaced_root_is_returned_and_an_empty_slot_stays():
    old, new = nn.Linear(1, 1), nn.Tanh()
    assert replace_modules(old, [(old, new)]) is new
    model = nn.Module()
    model.register_module("empty", None)
    assert replace_modules(model, [(old, new)]) is model
    assert model.empty is None


def test_a_new_module_may_hold_the_old_one():
    old = nn.ReLU()
    model = nn.Sequential(old)
    replace_modules(model, [(old, nn.Sequential(old))])
    assert model[0][0] is old
