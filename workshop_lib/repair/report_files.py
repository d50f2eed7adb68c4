"""Reports as files: Markdown and PDF, under the state folder's `reports/`.

A file is written beside its place and moved there in one step, so a reader finds the old one or the new one
and never half of it. Left out: what a report says (`documents`, the report analyst).

The PDF is set in a font that every reader has and that knows the letters of Western Europe; others are
written with the nearest ones, or as a question mark. The Markdown has them all.
"""

import asyncio
import hashlib
import re
import unicodedata
from collections.abc import Callable
from typing import Literal, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from workshop_lib.machine import state_folder
from workshop_lib.machine.files import write_whole
from workshop_lib.repair.models import Frozen
from workshop_lib.settings import get_settings
from workshop_lib.temporal.steps import heartbeating, step_options

T = TypeVar("T")

REPORT_OPTIONS = step_options(attempt=60, total=300, longest_pause=20)

# What models like to write and the PDF's font lacks.
_NEAREST = str.maketrans(
    {"–": "-", "—": "-", "‑": "-", "…": "...", "‘": "'", "’": "'", "“": '"', "”": '"', "„": '"',
     "•": "·", "→": "->", "←": "<-", "≥": ">=", "≤": "<=", "≈": "~", "−": "-", "€": "EUR",
     "ł": "l", "Ł": "L", "œ": "oe", "Œ": "OE", "\u202f": " ", "\u2009": " "}
)  # fmt: skip


class SaveReport(Frozen):
    """Input of `save_report`.

    Attributes:
        scope: whose report it is: the plan's scope. It becomes part of the file's name.
    """

    scope: str
    kind: Literal["planning", "execution"]
    markdown: str


class ReportFiles(Frozen):
    """Where a report lies."""

    markdown: str
    pdf: str


@activity.defn
async def save_report(request: SaveReport) -> ReportFiles:
    """Write a report as Markdown and PDF.

    May run twice: the same files are written again, with the same text.

    Raises:
        ApplicationError: type `ReportUnwritable` (retried): the folder cannot be written.
    """
    return await in_thread(lambda: _save(request), "The report", "ReportUnwritable")


async def in_thread(write: Callable[[], T], what: str, kind: str) -> T:
    """Write files in a thread, from within an activity.

    Raises:
        ApplicationError: of this type (retried): the folder cannot be written.
    """
    async with heartbeating():
        try:
            return await asyncio.to_thread(write)
        except OSError as error:
            raise ApplicationError(
                f"{what} cannot be written: {error.strerror}: {error.filename}.", type=kind
            ) from None


def _save(request: SaveReport) -> ReportFiles:
    folder = state_folder.made(get_settings().state_dir, "reports")
    name = f"{file_name(request.scope)}-{request.kind}"
    markdown, pdf = folder / f"{name}.md", folder / f"{name}.pdf"
    write_whole(pdf, to_pdf(request.markdown))
    write_whole(markdown, request.markdown.encode())
    return ReportFiles(markdown=str(markdown), pdf=str(pdf))


def file_name(scope: str) -> str:
    """A scope as the name of a file: different scopes have different names."""
    plain = re.sub(r"[^A-Za-z0-9.-]+", "_", scope).strip("._")[:100]
    return f"{plain or 'repair'}-{hashlib.sha256(scope.encode()).hexdigest()[:6]}"


def to_pdf(markdown: str) -> bytes:
    """Markdown as PDF: headings, paragraphs, lists, emphasis.

    Images, links and HTML are not followed but printed as text: a report quotes what strangers have
    written, and it must not fetch anything.
    """
    from fpdf import FPDF  # imported here because only this activity waits for it
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False})
    reader.disable(["image", "link", "autolink", "html_block", "html_inline", "reference"])
    pdf = FPDF()
    pdf.set_title("Repair report")
    pdf.set_creator("durable-agents-workshop")
    pdf.add_page()
    pdf.set_font("Helvetica", size=10)
    pdf.write_html(_western(reader.render(markdown)))
    return bytes(pdf.output())


def _western(text: str) -> str:
    """The text in Latin-1, as near as possible."""
    composed = unicodedata.normalize("NFC", text).translate(_NEAREST)
    written = []
    for character in composed:
        if ord(character) < 256:
            written.append(character)
        else:
            base = unicodedata.normalize("NFKD", character)[0]
            written.append(base if ord(base) < 256 else "?")
    return "".join(written)
