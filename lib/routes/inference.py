"""POST /infer/{model}: waits for its turn without occupying a thread, and ends when its client goes away."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, BackgroundTasks, Depends, File, Form, HTTPException, Request, UploadFile
from monailabel.config import RBAC_USER, settings
from monailabel.endpoints.infer import ResultType, run_inference
from monailabel.endpoints.infer import router as original
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from lib.queueing import Cancelled, DuplicateTicketError, InferenceQueue, Ticket
from lib.routes import segmentations
from lib.routes.queue import queue

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/infer", tags=["Infer"])

LOOK_SECONDS = 0.25
"""How often a request looks whether its client is still there."""

LONGEST_TICKET = 100

# Not the web server's own threads: inferences that wait for an image must not take those that answer others.
_preparing = ThreadPoolExecutor(16, "fetch image")
_computing = ThreadPoolExecutor(1, "inference")


@router.post(
    "/{model}", summary=f"{RBAC_USER}Run Inference for supported model", responses=dict(original.responses)
)
async def infer(
    request: Request,
    background_tasks: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: UploadFile = File(None),  # noqa: B008
    label: UploadFile = File(None),  # noqa: B008
    output: ResultType | None = None,
    user: User = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)),  # noqa: B008
) -> Any:
    """MONAI Label's inference, in the order of `lib.queueing`.

    `params` may carry `client_id`, whose turn it takes, and `ticket`, a name for the inference with which
    `DELETE /infer/queue/{ticket}` cancels it.
    """
    values = _read(params)
    if output == ResultType.dicom_seg:
        segmentations.require_pacs("" if session_id or file else image)

    def run() -> Any:
        if output == ResultType.dicom_seg:
            return segmentations.infer_seg(background_tasks, model, image, values)
        return run_inference(
            background_tasks, model, image, session_id, json.dumps(values), file, label, output
        )

    stored = "" if session_id or file else image
    what = image or ("the session's image" if session_id else "the uploaded image")
    return await in_turn(request, background_tasks, model, stored, values, user, run, what=what)


async def in_turn(
    request: Request,
    background_tasks: BackgroundTasks,
    model: str,
    image: str,
    values: dict[str, Any],
    user: User,
    run: Callable[[], Any],
    *,
    what: str = "",
) -> Any:
    """Compute something when its turn comes, see `lib.queueing`, unless it is cancelled or its client goes away.

    Args:
        request: of whom it is computed for.
        background_tasks: removes files.
        model: which computes.
        image: one of the studies, which is fetched first; empty for any other.
        values: the request's params; `ticket` is set before it is computed.
        user: who asks.
        run: computes, in a thread.
        what: how the queue calls the image.
    """
    instance, line, turn = app_instance(), queue(), asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        ticket = line.enter(
            model,
            what or image,
            _client(request, values, user),
            ticket=values.get("ticket"),
            owner=user.username,
            urgent=instance.answers_clicks(model),
            ready=False,
            wake=lambda: loop.call_soon_threadsafe(turn.set),
        )
    except DuplicateTicketError as error:
        raise HTTPException(409, str(error)) from error
    watch, work = _Watch(request, line, ticket), _Work(line, ticket, background_tasks)
    try:
        preparing = loop.run_in_executor(_preparing, instance.prepare_inference, model, image)
        preparing.add_done_callback(_seen)
        await watch.wait(preparing, turn.wait())  # before its turn it is woken when it is cancelled
        ticket.check()
        await preparing
        line.make_ready(ticket)
        await watch.wait(turn.wait())
        ticket.check()
        values["ticket"] = ticket.id
        computing = work.start(loop, run)
        await watch.wait(computing)
        answer = await computing
        ticket.check()  # it may have been too late to stop
    except BaseException as error:  # also when the server ends and cuts its requests
        work.abandon()
        if isinstance(error, Cancelled):
            raise HTTPException(409, str(error)) from error
        raise
    finally:
        line.cancel(ticket)  # if this request is over before its inference is
        if not work.started:
            line.leave(ticket)
    return answer


class _Work:
    """An inference in its thread: however it ends, and whether or not its request is still there, others go on.

    What it leaves in files is removed after the answer was sent, or here if there is none.
    """

    def __init__(self, line: InferenceQueue, ticket: Ticket, files: BackgroundTasks) -> None:
        self._line, self._ticket, self._files = line, ticket, files
        self._abandoned = threading.Event()
        self.started = False

    def start(self, loop: asyncio.AbstractEventLoop, run: Callable[[], Any]) -> asyncio.Future[Any]:
        """Compute it as soon as the thread is free."""
        self.started = True
        computing = loop.run_in_executor(_computing, self._compute, run)
        computing.add_done_callback(_seen)
        return computing

    def abandon(self) -> None:
        """Nobody gets the answer: remove the files, now and those that are still to come when it has ended."""
        self._abandoned.set()
        self._remove_files()

    def _compute(self, run: Callable[[], Any]) -> Any:
        try:
            self._ticket.check()
            return run()
        finally:
            self._line.leave(self._ticket)
            if self._abandoned.is_set():
                self._remove_files()

    def _remove_files(self) -> None:
        # FastAPI does it after a success only. Not awaited: whoever cancels a request at the server's end does not wait
        for task in list(self._files.tasks):
            with suppress(OSError):
                task.func(*task.args, **task.kwargs)


class _Watch:
    """Waits for something and meanwhile looks whether the client has gone, which cancels its inference."""

    def __init__(self, request: Request, line: InferenceQueue, ticket: Ticket) -> None:
        self._request, self._line, self._ticket = request, line, ticket
        self._gone = False

    async def wait(self, *one_of: Awaitable[Any]) -> None:
        """Return as soon as one of these is done; what came of it is for the caller to ask."""
        tasks = [asyncio.ensure_future(work) for work in one_of]
        try:
            while not (await asyncio.wait(tasks, timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED"))[0]:
                if not self._gone and await self._request.is_disconnected():
                    self._gone = True
                    ticket = self._ticket
                    logger.info(
                        "%s went away: the inference %s of %s with %s is cancelled",
                        *(ticket.client, ticket.id, ticket.image, ticket.model),
                    )
                    self._line.cancel(ticket)
        finally:
            for task in tasks:
                if isinstance(task, asyncio.Task):  # turn.wait(); a thread's future is awaited by others
                    task.cancel()


def _seen(work: asyncio.Future[Any]) -> None:
    """Whatever became of it, nobody may be waiting any more, which is no reason for a call stack in the log."""
    if not work.cancelled():
        work.exception()


def _read(params: str) -> dict[str, Any]:
    values = json.loads(params) if params else {}
    if not isinstance(values, dict):
        raise HTTPException(
            422, "The request's params are not a JSON object: send {...} with names and values."
        )
    ticket = values.get("ticket")
    if ticket is not None and not (isinstance(ticket, str) and 0 < len(ticket) <= LONGEST_TICKET):
        raise HTTPException(
            422, f"The ticket is {ticket!r:.60}: send a text of up to {LONGEST_TICKET} characters, or none."
        )
    return values


def _client(request: Request, values: dict[str, Any], user: User) -> str:
    """Who takes turns: the viewer on its computer if it says who it is, else the user, else the computer.

    Every 3D Slicer calls itself `user-xyz` until somebody changes that.
    """
    host = request.client.host if request.client else "unknown"
    if name := values.get("client_id"):
        return f"{str(name)[:LONGEST_TICKET]}@{host}"
    return user.username if settings.MONAI_LABEL_AUTH_ENABLE else host
