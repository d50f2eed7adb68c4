"""Telling people: a line in the log and an e-mail as a text file, under the state folder's `outbox/`.

Left out: sending it. A workshop has no mail server; whoever has one sends what lies in the folder.
"""

import logging
from email.message import EmailMessage

from temporalio import activity

from workshop_lib import harmless
from workshop_lib.machine import state_folder
from workshop_lib.machine.files import write_whole
from workshop_lib.repair.models import Frozen
from workshop_lib.repair.report_files import file_name, in_thread
from workshop_lib.repair.states import Notice
from workshop_lib.settings import get_settings
from workshop_lib.temporal.steps import step_options

logger = logging.getLogger(__name__)

RECIPIENT = "order-repairs@diagonalley.co.uk"
SENDER = "repair-agent@diagonalley.co.uk"
NOTIFY_OPTIONS = step_options(attempt=20, total=120, longest_pause=2)


class Notification(Frozen):
    """Input of `notify`.

    Attributes:
        scope: of the pass that it is about; one notification a pass and state.
        body: what the e-mail says below its first line.
    """

    scope: str
    notice: Notice
    body: str = ""


@activity.defn
async def notify(notification: Notification) -> str:
    """Write a notification. Returns the path of the e-mail's text.

    May run twice: the same file is written again, so nobody is told twice; the log has a second line.

    Raises:
        ApplicationError: type `OutboxUnwritable` (retried).
    """
    notice = notification.notice
    logger.info("%s, cycle %d: %s. %s", notice.source, notice.cycle, notice.state, notice.summary)
    return await in_thread(lambda: _write(notification), "The notification", "OutboxUnwritable")


def _write(notification: Notification) -> str:
    notice = notification.notice
    mail = EmailMessage()
    mail["From"], mail["To"] = SENDER, RECIPIENT
    # A workflow id may hold anything, and must stay one line.
    mail["Subject"] = harmless.line(
        f"Order repair: {notice.state}, cycle {notice.cycle} of {notice.source}"
    )
    # Not wrapped or encoded: a person may read the file as it is.
    text = harmless.block(f"{notice.summary}\n\n{notification.body}").strip()
    mail.set_content(text + "\n", cte="8bit")
    folder = state_folder.made(get_settings().state_dir, "outbox")
    path = folder / f"{file_name(notification.scope)}-{notice.state}.eml"
    write_whole(path, mail.as_bytes())
    return str(path)
