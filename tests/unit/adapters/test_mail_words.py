"""Letters as they are read: whole words, one subject, no header that anybody else wrote."""

from __future__ import annotations

import string
from dataclasses import replace
from email import message_from_bytes
from email.policy import SMTP, default
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.adapters.mail.smtp import SmtpMail, SmtpTerms
from gateway.adapters.mail.words import TemplateError, Templates
from gateway.core.notices import KINDS, is_signed, unsubscribe_signature
from gateway.ports.carrying import Undeliverable
from gateway.ports.mail import Letter

FIGURES = {
    "user": "ada", "tier": "free", "percent": "80", "used": "80,100", "limit": "100,000",
    "left": "19,900", "reset": "1 July 2026 at 00:00 (UTC)", "pack_left": "60",
    "pack_tokens": "320", "pack_ends": "9 June 2026 at 12:00 (UTC)",
}  # fmt: skip
LETTER = Letter(
    "ada@example.org", "crossing", "0" * 32, FIGURES,
    (("Buy <more> & more", "https://top.example/?a=1&b=2"),),
    "https://quota.example/quota/v1/unsubscribe?user=ada&kind=crossing&signature=s",
)  # fmt: skip
TERMS = SmtpTerms(
    "mail", 25, "none", None, "", '"Quota, Inc." <quota@example.org>', "help@example.org"
)


def mail(folder: Path | None = None) -> SmtpMail:
    return SmtpMail(TERMS, Templates(folder))


@pytest.mark.parametrize("kind", [*KINDS, "test"])
def test_every_kind_has_words_without_a_figure_left_open(kind: str) -> None:
    words = Templates().words(replace(LETTER, kind=kind))
    assert 10 < len(words.subject) < 80
    for text in (words.subject, words.text, words.html):
        assert "$" not in text
    assert words.text.count("\n\n") >= 2
    assert f"{LETTER.ways_on[0][0]}: {LETTER.ways_on[0][1]}" in words.text
    assert "Buy &lt;more&gt; &amp; more" in words.html
    assert 'href="https://top.example/?a=1&amp;b=2"' in words.html


def test_a_mail_has_both_forms_and_the_headers_of_one_click_unsubscribing() -> None:
    sent = message_from_bytes(mail().message(LETTER).as_bytes(policy=SMTP), policy=default)
    assert sent["To"] == "ada@example.org"
    assert sent["From"] == '"Quota, Inc." <quota@example.org>'
    assert sent["Reply-To"] == "help@example.org"
    assert sent["Subject"] == "You have used 80 % of your monthly tokens"
    assert sent["Message-ID"] == f"<{'0' * 32}@example.org>"
    assert sent["List-Unsubscribe"] == f"<{LETTER.unsubscribe_url}>"
    assert sent["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert sent["Auto-Submitted"] == "auto-generated"
    kinds = [part.get_content_type() for part in sent.walk()]
    assert kinds == ["multipart/alternative", "text/plain", "text/html"]


@settings(deadline=None)
@given(
    name=st.text(alphabet=string.printable + "é\u2028\x00", min_size=1, max_size=30),
    figure=st.text(alphabet=string.printable, max_size=30),
)
def test_no_address_and_no_figure_makes_a_header(name: str, figure: str) -> None:
    expected = set(mail().message(LETTER).keys())
    letter = replace(LETTER, address=f"{name}@example.org", figures={**FIGURES, "percent": figure})
    try:
        written = mail().message(letter).as_bytes(policy=SMTP.clone(utf8=True))
    except Undeliverable:
        return
    sent = message_from_bytes(written, policy=default)
    assert set(sent.keys()) == expected | {"MIME-Version", "Content-Type"}
    assert len(sent.get_all("To", [])) == 1


@pytest.mark.parametrize(
    "address",
    ["a@b\r\nBcc: c@example.org", "a@b, c@d", "a b@example.org", "a@b>", "<a@b", "", "a", "@b"],
)
def test_what_is_no_address_is_never_written_to(address: str) -> None:
    with pytest.raises(Undeliverable):
        mail().message(replace(LETTER, address=address))


def test_own_words_go_before_ours(tmp_path: Path) -> None:
    (tmp_path / "crossing.txt").write_text("Over $percent\n\nFor $$5 you get $left more.\n")
    own = Templates(tmp_path)
    assert own.words(LETTER).subject == "Over 80"
    assert "For $5 you get 19,900 more." in own.words(LETTER).text
    assert own.words(replace(LETTER, kind="exhausted")) == Templates().words(
        replace(LETTER, kind="exhausted")
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Hi $name\n\nx\n", r"crossing\.txt: there is no figure \$name; there are user, tier"),
        ("Hi\n\n5$ more\n", r"crossing\.txt: .* write \$\$ for a dollar"),
        ("\n\nx\n", r"crossing\.txt: the first line is the subject"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_at_the_start(
    tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "crossing.txt").write_text(text)
    with pytest.raises(TemplateError, match=problem):
        Templates(tmp_path)


def test_a_link_speaks_for_one_user_and_one_kind_under_one_pepper() -> None:
    signature = unsubscribe_signature(b"pepper", "ada", "crossing")
    assert is_signed(b"pepper", "ada", "crossing", signature)
    for pepper, user, kind in (
        (b"other", "ada", "crossing"), (b"pepper", "bob", "crossing"),
        (b"pepper", "ada", "exhausted"),
    ):  # fmt: skip
        assert not is_signed(pepper, user, kind, signature)
    assert not is_signed(b"pepper", "ada", "crossing", "é")
