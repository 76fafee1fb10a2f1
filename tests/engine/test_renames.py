import logging

import pytest

from engine import renames
from engine.methods import method
from engine.stages.generate import Generate
from engine.stages.generative_rerank import GenerativeRerank


def test_former_names_of_settings_still_work_and_name_the_new_one_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    renames.warn_of_former.cache_clear()
    with caplog.at_level(logging.WARNING, "seedset"):
        for _ in range(2):
            stage = Generate.model_validate({"reason": "class", "unwanted": True, "at_once": 3})
    assert stage == Generate(cot_level="class", negatives_in_prompt=True, query_batch_size=3)
    assert [message.split("; ")[0] for message in caplog.messages] == [
        "Generate: 'reason' is now called 'cot_level'",
        "Generate: 'unwanted' is now called 'negatives_in_prompt'",
        "Generate: 'at_once' is now called 'query_batch_size'",
    ]
    assert GenerativeRerank.model_validate({"at_once": 2}).query_batch_size == 2


def test_a_method_is_found_by_its_former_name(caplog: pytest.LogCaptureFixture) -> None:
    renames.warn_of_former.cache_clear()
    assert method("genexpan+unwanted") == method("genexpan+negatives")
    assert [m.split(";")[0] for m in caplog.messages] == [
        "method: 'genexpan+unwanted' is now called 'genexpan+negatives'"
    ]


def test_a_setting_is_given_by_one_of_its_names() -> None:
    with pytest.raises(ValueError, match="'reason' is the former name of 'cot_level'"):
        Generate.model_validate({"reason": "class", "cot_level": "class"})
