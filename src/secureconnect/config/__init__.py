"""Every setting: its type, default, unit, range and meaning, in one place. Rooms get their section."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import FOLDER, NODE_ID, setting
from .between import AuditConfig, BackupConfig, IdempotencyConfig, JournalConfig, OutboxConfig, SignalsConfig
from .edge import GatewayConfig, LogConfig, RateLimitsConfig, StunConfig
from .outside import (
    BreakerConfig,
    MemoryConfig,
    MinioConfig,
    PostgresConfig,
    PushConfig,
    RedisConfig,
    SmtpConfig,
    SqliteConfig,
    TracingConfig,
    TurnConfig,
)
from .rooms import AuthConfig, ChatConfig, KeysConfig, SignalingConfig, StorageConfig

__all__ = [
    "AuditConfig",
    "AuthConfig",
    "BackupConfig",
    "BreakerConfig",
    "ChatConfig",
    "Config",
    "GatewayConfig",
    "IdempotencyConfig",
    "JournalConfig",
    "KeysConfig",
    "LogConfig",
    "MemoryConfig",
    "MinioConfig",
    "OutboxConfig",
    "PostgresConfig",
    "PushConfig",
    "RateLimitsConfig",
    "RedisConfig",
    "SignalingConfig",
    "SignalsConfig",
    "SmtpConfig",
    "SqliteConfig",
    "StorageConfig",
    "StunConfig",
    "TracingConfig",
    "TurnConfig",
]


@dataclass(frozen=True, slots=True)
class Config:
    """All there is; a section for each part that is handed its own."""

    data_dir: str = setting("./data", "folder of the database, the files and the keys", form=FOLDER)
    node_id: str = setting("", "id of this node; empty: made in the data folder", form=NODE_ID)
    gateway: GatewayConfig = GatewayConfig()
    rate_limits: RateLimitsConfig = RateLimitsConfig()
    auth: AuthConfig = AuthConfig()
    keys: KeysConfig = KeysConfig()
    chat: ChatConfig = ChatConfig()
    storage: StorageConfig = StorageConfig()
    signaling: SignalingConfig = SignalingConfig()
    sqlite: SqliteConfig = SqliteConfig()
    memory: MemoryConfig = MemoryConfig()
    postgres: PostgresConfig = PostgresConfig()
    redis: RedisConfig = RedisConfig()
    minio: MinioConfig = MinioConfig()
    smtp: SmtpConfig = SmtpConfig()
    push: PushConfig = PushConfig()
    turn: TurnConfig = TurnConfig()
    stun: StunConfig = StunConfig()
    outbox: OutboxConfig = OutboxConfig()
    breaker: BreakerConfig = BreakerConfig()
    journal: JournalConfig = JournalConfig()
    signals: SignalsConfig = SignalsConfig()
    audit: AuditConfig = AuditConfig()
    backup: BackupConfig = BackupConfig()
    idempotency: IdempotencyConfig = IdempotencyConfig()
    log: LogConfig = LogConfig()
    tracing: TracingConfig = TracingConfig()
