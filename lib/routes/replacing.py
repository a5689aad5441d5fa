"""How a route of MONAI Label is replaced: path, parameters and the role that a user needs stay as they are."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

Endpoint = Callable[..., Any]


def replace(router: APIRouter, old: APIRouter, endpoint: Endpoint, function: Endpoint) -> None:
    """Add to `router` the routes of `old` that end in `endpoint`, ending in `function` instead.

    Args:
        function: takes some of the endpoint's parameters; FastAPI runs it in a thread.
    """

    def call(**values: Any) -> Any:
        accepted = inspect.signature(function).parameters
        return function(**{name: value for name, value in values.items() if name in accepted})

    for route in old.routes:
        if isinstance(route, APIRoute) and route.endpoint is endpoint:
            _add(router, route, call)


def in_threads(router: APIRouter, old: APIRouter) -> None:
    """Add to `router` the routes of `old` that are declared `async` and not replaced yet, each to be run in a thread.

    MONAI Label's are so declared around code that blocks: while one of them reads a file or asks the PACS, the
    server answers nobody else.
    """
    done = {(route.path, *(route.methods or ())) for route in router.routes if isinstance(route, APIRoute)}
    for route in old.routes:
        if not isinstance(route, APIRoute) or (route.path, *(route.methods or ())) in done:
            continue
        if inspect.iscoroutinefunction(route.endpoint):
            _add(router, route, _in_thread(route.endpoint))


def _in_thread(endpoint: Endpoint) -> Endpoint:
    def call(**values: Any) -> Any:
        return asyncio.run(endpoint(**values))

    return call


def _add(router: APIRouter, route: APIRoute, call: Endpoint) -> None:
    # The signature carries the parameters' types and the role that a user needs.
    call.__signature__ = inspect.signature(route.endpoint)  # type: ignore[attr-defined]
    call.__name__ = f"fewshot_{route.endpoint.__name__}"
    router.add_api_route(
        route.path,
        call,
        methods=list(route.methods or ()),
        response_model=route.response_model,
        summary=route.summary,
        tags=list(route.tags),
        responses=dict(route.responses),
        deprecated=route.deprecated,
        include_in_schema=route.include_in_schema,
    )
