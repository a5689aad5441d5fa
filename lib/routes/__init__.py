"""Routes of MONAI Label that get in the way, replaced when the server starts.

The checks of roles (RBAC) stay as they are, but for storing in the PACS, which takes the role that submitting a label
takes. What is changed:

- Whatever the app refuses reaches the viewer as a sentence (`errors`).
- Inferences wait in a queue without occupying a thread, can be cancelled, and are when their client goes away
  (`inference`, `queue`).
- What MONAI Label declares `async` around code that blocks is run in a thread, so that the server answers others
  meanwhile (`replacing`), the PACS's answers too (`proxy`).
- Training and batch inference are refused at once where they cannot work. Training all models, OHIF's button,
  leaves out those that take long; stopping it ends those that wait, too (`training`).
- Nobody waits for what this app does not have (`slides`), and a result as DICOM bears its names (`segmentations`).
- The landmarks of an image are told, and stored in the PACS (`landmarks`).
- The app gets ready for clicks in an image that somebody opens (`images`).
- OHIF's files are repaired while they are served (`lib.ohif`).
"""

from __future__ import annotations

__all__ = ["install"]


def install() -> None:
    """Change the server's routes; MONAI Label's web application must exist (it does when it has started)."""
    # Here, because background processes import this package too and have no web application.
    from fastapi import APIRouter
    from monailabel import endpoints
    from monailabel.app import app
    from monailabel.config import settings

    from lib.ohif import routes as ohif
    from lib.routes import images, inference, landmarks, proxy, queue, slides, training
    from lib.routes.errors import tell_errors
    from lib.routes.replacing import in_threads, replace

    ohif.viewer()  # it says in the log if OHIF cannot be repaired; nobody would look there at the first visit
    router = APIRouter()
    router.include_router(queue.router)
    router.include_router(inference.router)
    router.include_router(landmarks.router)
    router.include_router(proxy.router)
    router.include_router(ohif.router)
    replace(router, endpoints.datastore.router, endpoints.datastore.api_download_image, images.download_image)
    replace(router, endpoints.session.router, endpoints.session.api_create_session, images.create_session)
    replace(router, endpoints.train.router, endpoints.train.api_run_model, training.train_model)
    replace(router, endpoints.train.router, endpoints.train.api_run, training.train_all)
    replace(router, endpoints.train.router, endpoints.train.api_stop, training.stop_training)
    replace(router, endpoints.batch_infer.router, endpoints.batch_infer.api_run, training.batch_model)
    replace(router, endpoints.batch_infer.router, endpoints.batch_infer.api_stop, training.stop_batch)
    for endpoint in (endpoints.wsi_infer.api_run_wsi_inference, endpoints.wsi_infer.api_run_wsi_v2_inference):
        replace(router, endpoints.wsi_infer.router, endpoint, slides.refuse)
    modules = (
        "activelearning",
        "batch_infer",
        "datastore",
        "info",
        "logs",
        "model",
        "scoring",
        "session",
        "train",
    )
    for name in (*modules, *(["login"] if settings.MONAI_LABEL_AUTH_ENABLE else [])):
        in_threads(router, getattr(endpoints, name).router)
    app.include_router(router, prefix=settings.MONAI_LABEL_API_STR)
    app.router.routes.insert(0, app.router.routes.pop())  # the first route that matches answers
    tell_errors(app)
