"""`BatchInfo` as a context."""

from __future__ import annotations

import threading

import pytest
import torch

from normwise.layers import BatchInfo


def test_contexts_nest_and_end():
    outer, inner = BatchInfo(lengths=torch.tensor([1])), BatchInfo(domain=torch.tensor([2]))
    assert BatchInfo.current().lengths is None
    with outer:
        with inner:
            assert BatchInfo.current() is inner
        assert BatchInfo.current() is outer
    assert BatchInfo.current().lengths is None


def test_an_exception_ends_the_context():
    with pytest.raises(RuntimeError, match="inside"), BatchInfo(lengths=torch.tensor([1])):
        raise RuntimeError("inside")
    assert BatchInfo.current().lengths is None


def test_one_object_may_be_entered_twice_and_in_several_threads():
    info, failures = BatchInfo(lengths=torch.tensor([1])), []
    barrier = threading.Barrier(2)

    def work(first: bool):
        try:
            with info:
                barrier.wait()  # both are inside
                if BatchInfo.current() is not info:
                    failures.append("lost inside")
                if not first:
                    barrier.wait()
            if BatchInfo.current() is info:
                failures.append("kept after")
            if first:
                barrier.wait()  # the other leaves only now
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
    with info, info:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert BatchInfo.current() is info
    assert failures == []


def test_other_threads_do_not_see_it():
    seen = []
    with BatchInfo(lengths=torch.tensor([1])):
        thread = threading.Thread(target=lambda: seen.append(BatchInfo.current().lengths))
        thread.start()
        thread.join()
    assert seen == [None]
