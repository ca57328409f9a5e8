"""What the doctor says of what is set for pushes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit.pushservice import Google, push_service
from secureconnect.config import Config, PushConfig
from secureconnect.doctor import push
from secureconnect.doctor.findings import Finding, Report


async def look(settings: PushConfig) -> dict[str, Finding]:
    told: list[Finding] = []
    config = Config(push=settings)
    await push.check(config, Report(config, told.append))
    return {each.name: each for each in told}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (PushConfig(enabled=False), "none"),
        (PushConfig(), "Web Push as mailto:no-reply@localhost"),
        (PushConfig(contact="mailto:root@example.org"), "Web Push as mailto:root@example.org"),
    ],
)
async def test_what_is_well(settings: PushConfig, found: str) -> None:
    [said] = (await look(settings)).values()
    assert said.status == "ok"
    assert said.found.startswith(found)


async def test_an_account_and_what_is_none(tmp_path: Path) -> None:
    async with push_service(tmp_path) as service:
        account = Google(service).write_account(tmp_path / "account.json")
        well = await look(PushConfig(fcm_account=account, allow_private=True))
        assert "FCM as push@a-project.example" in well["push"].found
        assert well["push.private"].status == "warning"
        for bad in (PushConfig(fcm_account=str(service.ca_file)), PushConfig(ca_file=account)):
            assert (await look(bad))["push"].status == "failed"
