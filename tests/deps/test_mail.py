"""Mail that becomes files."""

from __future__ import annotations

from pathlib import Path

import pytest

from secureconnect.deps.contracts import Mail
from secureconnect.deps.mail import FolderMailer
from secureconnect.errors import Unavailable
from secureconnect.identity import new_id

SENDER = "no-reply@chat.example.org"


def mail() -> Mail:
    return Mail(new_id(), "ann@example.org", "Hello", "Hello.\n", "<p>Hello.</p>")


async def test_the_files_are_private_and_the_oldest_make_room(data_dir: Path) -> None:
    mailer = FolderMailer(data_dir / "mail", SENDER, 2)
    sent = [mail() for _ in range(4)]
    for each in sent:
        await mailer.send(each)
    left = sorted((data_dir / "mail").iterdir())
    assert [path.name for path in left] == [f"{each.mail_id}.eml" for each in sent[2:]]
    assert {path.stat().st_mode & 0o777 for path in left} == {0o600}
    assert (data_dir / "mail").stat().st_mode & 0o777 == 0o700


async def test_a_folder_that_takes_nothing_is_away(data_dir: Path) -> None:
    (data_dir / "mail").touch()
    with pytest.raises(Unavailable):
        await FolderMailer(data_dir / "mail", SENDER, 2).send(mail())
