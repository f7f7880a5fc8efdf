"""What a person names on the command line: modules, classes, factories, loaders, tasks; and what cannot be resolved."""

from __future__ import annotations

import pytest
from cli.workshop import Workshop

from normwise.cli.target import load_data, load_model, load_task
from normwise.errors import UsageError


@pytest.mark.parametrize(
    ("call", "width"),
    [("make", 4), ("make(6)", 6), ("make(width=5)", 5), ("models.make(7)", 7), ("Tiny", 4), ("tiny", 4)],
)
def test_models_are_named_as_modules_classes_or_factories(workshop: Workshop, call: str, width: int):
    assert load_model(f"{workshop.module}:{call}").norm.num_features == width


def test_a_class_with_arguments_is_made_not_returned(workshop: Workshop):
    assert load_model(f"{workshop.module}:Tiny(9)").norm.num_features == 9


def test_data_is_an_iterable_or_a_factory_of_one(workshop: Workshop):
    assert len(list(load_data(f"{workshop.module}:tuples"))) == 8
    assert len(list(load_data(f"{workshop.module}:loader(batches=2)"))) == 2


def test_a_task_is_resolved_or_absent(workshop: Workshop):
    task = load_task(f"{workshop.module}:task")
    assert task is not None
    assert task.forward is not None
    assert load_task(None) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing_of_this_name:model", "cannot import"),
        ("{m}", "expected 'package.module:name'"),
        ("{m}:", "expected 'package.module:name'"),
        ("{m}:absent", "has no 'absent'; it has"),
        ("{m}:make(depth=3)", "(width: 'int' = 4)"),
        ("{m}:needy", "(width: 'int', depth: 'int')"),
        ("{m}:make(open('x'))", "must be literals"),
        ("{m}:make(**{{}})", "must be literals"),
        ("{m}:make(4) + 1", "must be literals"),
        ("{m}:number", "torch.nn.Module, got int"),
        ("{m}:number(3)", "cannot be called"),
        ("{m}:gives_text", "torch.nn.Module, got str"),
        ("{m}:fails", "ZeroDivisionError: division by zero"),
        ("broken_syntax:model", "SyntaxError"),
        ("broken_import:model", "NameError"),
    ],
)
def test_what_does_not_resolve_is_said(workshop: Workshop, text: str, said: str):
    workshop.write("broken_syntax.py", "def (:\n")
    workshop.write("broken_import.py", "undefined_name\n")
    with pytest.raises(UsageError) as caught:
        load_model(text.format(m=workshop.module))
    assert said in str(caught.value)
    assert str(caught.value).startswith("model: ")


@pytest.mark.parametrize("load", [load_data, load_task])
def test_the_wrong_kind_is_refused(workshop: Workshop, load):
    with pytest.raises(UsageError, match="got int"):
        load(f"{workshop.module}:number")
