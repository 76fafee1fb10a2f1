"""Check before work begins that a bundle's language model can be split over processes."""

from __future__ import annotations

from collections.abc import Iterable

from engine.errors import UserError
from engine.generation.files import LM_FILES
from engine.stages.base import Stage
from engine.storage.bundle import Bundle


def check_split_model(bundle: Bundle, stages: Iterable[Stage], processes: int) -> None:
    """Check that some stage has the bundle's language model, and that it can be split.

    Args:
        bundle: with the model.
        stages: of all methods.
        processes: over which its layers are split; with 1 there is nothing to check.

    Raises:
        UserError: there is no such stage, as where an endpoint has the model, or the model cannot be split.
    """
    if processes == 1:
        return
    if not any(stage.language_model for stage in stages):
        raise UserError(
            f"tensor_parallel {processes}: no stage of these methods holds the bundle's language model, and "
            "what an endpoint has is split there; leave it out"
        )
    from engine.models.hub import NamedModel
    from engine.models.tensor_parallel import check_tensor_parallel

    check_tensor_parallel(NamedModel.open(bundle.path(LM_FILES[0]), "language model"), processes)
