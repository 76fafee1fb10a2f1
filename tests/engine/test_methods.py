import numpy as np
import pytest

from engine.errors import QueryError
from engine.methods import METHODS, method
from engine.query import Query
from tests.support.bundles import method_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return method_bundle(tmp_path_factory.mktemp("w"))


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(QueryError, match="unknown method 'retexpand'; known: retexpan, "):
        method("retexpand")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_answers_alike_alone_and_in_any_batch(name, bundle):
    run = method(name).open(bundle)
    queries = [
        Query("a", (1, 2, 3), (4, 5), top_k=20),
        Query("b", (6,), top_k=300),
        Query("c", (7, 8), (9, 10, 11)),
    ]
    together = run(queries)
    for query, found in zip(queries, together, strict=True):
        (alone,) = run([query])
        assert found.query == query
        np.testing.assert_array_equal(found.ranking.ids, alone.ranking.ids)
        np.testing.assert_array_equal(found.ranking.scores, alone.ranking.scores)
        assert len(found.ranking) == query.top_k
        assert not set(found.ranking.ids.tolist()) & set(query.seeds)
        assert (np.diff(found.ranking.scores) <= 0).all()
