"""The mail server of the configuration, and the templates of what it is given.

Commands try both before anything starts, so this imports little: where no mail server is configured
its library is not imported at all.
"""

from __future__ import annotations

from pathlib import Path

from gateway.config import Settings
from gateway.ports.mail import Mail


def open_mail(settings: Settings) -> Mail | None:
    """Who carries letters; None where nobody does. ValueError names a template that cannot be
    used."""
    smtp = settings.notify.smtp
    if smtp is None:
        return None
    from gateway.adapters.mail.smtp import SmtpMail, SmtpTerms
    from gateway.adapters.mail.words import Templates

    terms = SmtpTerms(
        host=smtp.host,
        port=smtp.port,
        tls=smtp.tls,
        user=smtp.user,
        password=smtp.password.reveal(),
        sender=smtp.sender,
        reply_to=smtp.reply_to,
    )
    return SmtpMail(terms, Templates(Path(smtp.templates) if smtp.templates else None))
