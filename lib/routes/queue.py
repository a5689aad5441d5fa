"""What is computed now and what waits, for annotators who share a server."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, HTTPException
from monailabel.config import RBAC_USER, settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from lib.queueing import InferenceQueue

router = APIRouter(prefix="/infer/queue", tags=["Infer"])


@router.get("", summary=f"{RBAC_USER}Get the inference that runs and those that wait")
async def get_queue(user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))) -> dict[str, Any]:  # noqa: ARG001, B008
    """``running`` and ``waiting``, see `InferenceQueue.report`."""
    return queue().report()


@router.delete("/{ticket:path}", summary=f"{RBAC_USER}Cancel an inference")
async def cancel(
    ticket: str,
    user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)),  # noqa: B008
) -> dict[str, Any]:
    """Cancel an inference that waits or runs; where users have names, one's own, unless one is an administrator."""
    found = queue().find(ticket)
    if found is None:
        raise HTTPException(404, f"There is no inference with the ticket {ticket}: it is over, or never was.")
    if found.owner != user.username and settings.MONAI_LABEL_AUTH_ROLE_ADMIN not in user.roles:
        raise HTTPException(403, f"The inference {ticket} is {found.owner}'s: ask them, or an administrator.")
    queue().cancel(found)
    return {"ticket": ticket, "cancelled": True}


def queue() -> InferenceQueue:
    """The app's queue."""
    found: InferenceQueue = app_instance().project.engine.queue
    return found
