"""What went wrong in a project's code, as Python tells it."""

import traceback


class PreviewFailed(Exception):
    """A preview, or the module that it is in, raised an error.

    Attributes:
        traceback: the traceback as text, without the frames of the code that called the preview.
    """

    def __init__(self, traceback: str) -> None:
        super().__init__("The preview failed.")
        self.traceback = traceback


def failed(error: BaseException, caller: str) -> PreviewFailed:
    """Return an error as the failure of a preview.

    Args:
        error: what was raised.
        caller: the file that called the preview; its frames are of no interest.
    """
    where = error.__traceback__
    while where is not None and where.tb_frame.f_code.co_filename == caller:
        where = where.tb_next
    text = "".join(traceback.format_exception(type(error), error, where))
    return PreviewFailed(text.encode("utf-8", "replace").decode())
