"""A stand-in for ``apache_beam``: as much of it as the pipeline needs, in lists and in any order.

Elements go from step to step pickled, as they would between machines.
"""

import functools
import pickle
import random

SEED = [0]  # of the order in which elements arrive


class Collection(list):
    def __or__(self, step):
        return step(self)


class Transform:
    def __init__(self, function):
        self.function = function

    def __call__(self, *collections):
        found = Collection(pickle.loads(pickle.dumps([*self.function(*collections)])))
        random.Random(SEED[0]).shuffle(found)
        return found

    __ror__ = __call__  # of a dictionary of collections

    def __rrshift__(self, label):
        return self


class Pipeline:
    def __init__(self, options=None):
        """Whatever the options."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Everything has been done."""

    def __or__(self, step):
        return step([])


def Create(values):
    return Transform(lambda _: values)


def Reshuffle():
    return Transform(lambda values: values)


def Map(function):
    return Transform(lambda values: map(pickle.loads(pickle.dumps(function)), values))


def FlatMap(function):
    apply = functools.partial(lambda how, values: [e for v in values for e in how(v)])
    return Transform(functools.partial(apply, pickle.loads(pickle.dumps(function))))


def GroupByKey():
    def gather(pairs):
        found = {}
        for key, value in pairs:
            assert type(key) is int
            found.setdefault(key, []).append(value)
        return found.items()

    return Transform(gather)


def CoGroupByKey():
    def gather(collections):
        found = {}
        for name, pairs in collections.items():
            for key, value in pairs:
                assert type(key) is int
                found.setdefault(key, {name: [] for name in collections})[name].append(value)
        return found.items()

    return Transform(gather)
