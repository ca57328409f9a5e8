"""Settings of the rooms."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import setting


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """Accounts, sessions and sign-in."""

    master_key: str = setting(
        "",
        "32 bytes in base64 that seal stored secrets, equal on every node; empty: made in the data folder",
        secret=True,
    )
    registration: str = setting("open", "who may register", choices=("open", "invite", "closed"))
    lockout_failures: int = setting(
        5, "failed sign-ins of one account, or one known device, that lock it", low=1, high=1_000
    )
    lockout_address_failures: int = setting(
        50, "failed sign-ins from one address that lock it, known devices excepted", low=1, high=1_000
    )
    lockout_window_s: int = setting(900, "seconds for which a failed sign-in counts", low=1, high=86_400)
    lockout_s: int = setting(900, "seconds a lock lasts", low=1, high=86_400)
    totp_setup_s: int = setting(
        600, "seconds in which a second factor that is set up must be confirmed", low=30, high=86_400
    )
    recovery_codes: int = setting(
        10, "codes given with a second factor that each replace it once", low=1, high=100
    )
    invite_days: int = setting(
        7, "days an invite is good unless it is made for fewer or more", low=1, high=365
    )
    access_ttl_s: int = setting(900, "seconds an access token lives", low=5, high=86_400)
    refresh_ttl_s: int = setting(2_592_000, "seconds a refresh token lives", low=60, high=31_536_000)
    refresh_grace_s: int = setting(
        30, "seconds in which a spent refresh token gives the same successor again", low=0, high=300
    )
    ticket_ttl_s: int = setting(30, "seconds a WebSocket ticket lives", low=1, high=300)
    argon2_time_cost: int = setting(2, "argon2id passes (OWASP)", low=1, high=20)
    argon2_memory_kib: int = setting(19_456, "argon2id memory in KiB (OWASP)", low=64, high=4_194_304)
    argon2_waiting: int = setting(
        64, "logins that may wait for a core before more are answered 503", low=1, high=10_000
    )
    token_cache: int = setting(10_000, "verified access tokens kept in memory", low=16, high=1_000_000)
    revocation_poll_ms: int = setting(
        500, "milliseconds between two reads of the revocations", low=50, high=1_000
    )
    outage_grace_s: int = setting(
        14_400,
        "seconds, from when the database went away, for which a token valid then is accepted without it",
        low=0,
        high=604_800,
    )
    outage_renew_s: int = setting(
        60,
        "seconds an open WebSocket has for a fresh token once the database is back",
        low=5,
        high=600,
    )
    open_reports: int = setting(
        50, "reports of one person that may be open before more are answered 429", low=1, high=10_000
    )
    deletion_grace_days: int = setting(
        30, "days an account that was deleted by its owner can be restored", low=0, high=365
    )
    max_friends: int = setting(
        5_000, "friends and requests that one account may have made", low=1, high=100_000
    )
    max_blocked: int = setting(5_000, "people that one account may have blocked", low=1, high=100_000)
    exports_at_once: int = setting(
        4, "exports of personal data under way on this node before more are answered 503", low=1, high=1_000
    )
    verify_ttl_s: int = setting(
        86_400, "seconds a mailed token confirms an e-mail address", low=60, high=2_592_000
    )
    reset_ttl_s: int = setting(3_600, "seconds a mailed token sets a new password", low=60, high=86_400)
    mail_pause_s: int = setting(
        60, "seconds before the same kind of mail is sent to the same account again", low=0, high=86_400
    )
    key_lead_s: int = setting(
        60, "seconds a new signing key is verified everywhere before it signs", low=0, high=3_600
    )

    @property
    def revocations_kept_s(self) -> int:
        """How long a token of an ended session could pass at most, and an hour."""
        return self.access_ttl_s + self.outage_grace_s + 3_600


@dataclass(frozen=True, slots=True)
class KeysConfig:
    """Keys of devices that encrypt."""

    devices: int = setting(100, "devices of one person that may have keys", low=1, high=1_000)
    one_time_keys: int = setting(
        200, "one-time keys of one device waiting to be claimed", low=100, high=10_000
    )
    document_bytes: int = setting(8_192, "bytes of one key with its signatures", low=1_024, high=65_536)
    claims: int = setting(
        60, "claims a minute of one person for keys of the devices of another", low=1, high=1_000_000
    )
    claim_repeat_s: int = setting(
        600, "seconds for which a claim with the same Idempotency-Key gives the same keys", low=1, high=86_400
    )
    pre_key_stale_days: int = setting(
        7, "days after which a signed pre-key is said to be stale", low=1, high=365
    )
    pre_key_kept_days: int = setting(
        30, "days a replaced signed pre-key, and a claimed one-time key, is kept", low=1, high=365
    )
    pre_keys_kept: int = setting(100, "replaced signed pre-keys kept of one device", low=1, high=1_000)
    asked_people: int = setting(
        1_000, "people, or devices, named in one call for keys or messages", low=10, high=100_000
    )
    inbox_messages: int = setting(
        10_000, "messages waiting for one device before more are dropped", low=10, high=1_000_000
    )
    inbox_mb: int = setting(16, "megabytes of them", low=1, high=1_024)
    message_bytes: int = setting(
        65_536, "bytes of a message from device to device", low=1_024, high=1_048_576
    )
    sync_messages: int = setting(
        100, "messages told to a device at a time; the rest follows", low=1, high=1_000
    )
    sending_kept_s: int = setting(
        86_400, "seconds in which a message sent again sends nothing", low=60, high=2_592_000
    )
    changes_days: int = setting(
        30, "days back for which a device is told whose keys have changed", low=1, high=365
    )
    backup_keys: int = setting(100_000, "keys in one person's backup", low=100, high=100_000_000)
    backup_key_bytes: int = setting(8_192, "bytes of one of them", low=512, high=65_536)
    backup_versions: int = setting(5, "versions of it kept until they are deleted", low=1, high=100)


@dataclass(frozen=True, slots=True)
class ChatConfig:
    """Conversations and messages."""

    max_message_chars: int = setting(10_000, "characters of a message", low=1, high=100_000)
    max_encrypted_bytes: int = setting(65_536, "bytes of an encrypted message", low=1024, high=1_048_576)
    e2ee_default_direct: bool = setting(
        False, "whether the web client begins direct conversations encrypted end to end, where it can"
    )
    max_members: int = setting(500, "members of a group", low=2, high=100_000)
    first_sync_conversations: int = setting(
        20, "conversations whose newest messages a first sync brings", low=1, high=100
    )
    first_sync_messages: int = setting(20, "messages of each of them", low=1, high=100)
    max_open_polls: int = setting(100, "open polls of one conversation", low=1, high=100_000)
    votes_waiting: int = setting(
        1_000, "votes waiting to be counted before more are answered 503", low=1, high=1_000_000
    )
    poll_pass_s: float = setting(
        1.0, "seconds between two looks for polls past their end", low=0.05, high=3_600
    )
    max_files: int = setting(20, "files that one message carries", low=1, high=1_000)
    notifications_kept: int = setting(
        500, "notifications kept of one person; the oldest go", low=10, high=100_000
    )
    notify_pass_s: float = setting(
        1.0, "seconds between two looks for what people are to be notified of", low=0.05, high=3_600
    )
    max_pins: int = setting(50, "pinned messages of one conversation", low=1, high=100)
    max_reactions: int = setting(20, "different reactions to one message", low=1, high=1_000)
    versions_kept: int = setting(
        50, "earlier versions kept of an edited message; the oldest go first", low=0, high=10_000
    )
    retention_days: int = setting(
        0, "days a message is kept; 0 keeps for ever; a conversation may ask for fewer", low=0, high=3_650
    )
    append_queue: int = setting(
        4_096, "messages waiting to be stored before more are answered 503", low=1, high=1_000_000
    )
    append_batch: int = setting(256, "messages stored in one transaction", low=1, high=10_000)
    catch_up_ms: int = setting(
        5_000, "milliseconds between two looks for changes the bus has lost", low=100, high=60_000
    )
    resume_wait_s: float = setting(
        10.0, "seconds a socket opened with resume=1 has for its resume frame", low=0.1, high=60
    )
    resume_changes: int = setting(
        1_000, "changes of one conversation replayed before a gap is sent instead", low=1, high=100_000
    )
    resume_total: int = setting(10_000, "changes replayed to one socket in all", low=1, high=1_000_000)
    resume_days: int = setting(30, "days back that are replayed", low=1, high=3_650)
    resume_held: int = setting(
        1_000, "live events held for a socket while the past is replayed to it", low=1, high=100_000
    )
    hub_conversations: int = setting(
        10_000, "conversations whose members are kept in memory", low=16, high=10_000_000
    )
    recent_mb: int = setting(
        32,
        "megabytes of what happened lately, told while the database is away; 0: none",
        low=0,
        high=65_536,
    )
    recent_changes: int = setting(
        500,
        "changes of one conversation kept there; read messages below them count, too",
        low=1,
        high=100_000,
    )
    pages_mb: int = setting(
        8,
        "megabytes of newest pages of conversations, told again while nothing happens there; 0: none",
        low=0,
        high=65_536,
    )
    publish_queue: int = setting(
        10_000,
        "parcels of events waiting for the bus before more are left to catch-up",
        low=16,
        high=1_000_000,
    )
    background_share: float = setting(
        0.1,
        "part of the time that indexing and notifying may take each; while more is said they are behind",
        low=0.001,
        high=1,
    )
    search_pass_s: float = setting(
        0.5, "seconds between two looks for messages that search cannot find yet", low=0.05, high=3_600
    )
    search_batch: int = setting(
        50, "messages put into the index that is searched in one transaction", low=1, high=10_000
    )
    search_units: int = setting(100, "such transactions in one look", low=1, high=10_000)
    search_purge_s: int = setting(
        3_600,
        "seconds after which words of deleted messages are cleared from SQLite's index, too",
        low=0,
        high=2_592_000,
    )
    search_s: float = setting(5.0, "seconds a search may take", low=0.1, high=60)
    searches_at_once: int = setting(2, "searches under way on this node; the others wait", low=1, high=1_000)
    searches_waiting: int = setting(100, "searches waiting before more are answered 503", low=1, high=100_000)
    retention_pass_s: float = setting(
        60.0,
        "seconds between two looks for messages past their term, and for what deleted conversations leave",
        low=0.1,
        high=86_400,
    )
    disappear_pass_s: float = setting(
        1.0, "seconds between two looks for messages that are to disappear", low=0.05, high=3_600
    )
    offline_grace_s: float = setting(
        10.0, "seconds after the last socket closed before a person is shown offline", low=0, high=600
    )
    presence_per_s: int = setting(
        2_000,
        "words about presence told in a second; the others wait, the latest only",
        low=10,
        high=1_000_000,
    )
    presence_kept: int = setting(
        100_000, "people whose presence and last sight are kept in memory", low=16, high=10_000_000
    )
    presence_audience: int = setting(
        10_000,
        "people looked through for those who are told of one change of presence",
        low=10,
        high=1_000_000,
    )
    node_silent_s: float = setting(
        10.0, "seconds a node is silent before nobody on it is shown as here", low=2, high=600
    )
    last_seen_save_s: float = setting(
        60.0, "seconds between two passes that write when people were last here", low=0.1, high=3_600
    )
    last_seen_rows: int = setting(
        2_000, "rows written in one of them at most; the others wait", low=1, high=1_000_000
    )
    typing_ttl_s: float = setting(6.0, "seconds a typing mark lasts without being renewed", low=1, high=60)


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """Files and their uploads."""

    quota_mb: int = setting(10_240, "megabytes of files that one account may keep", low=0, high=1_073_741_824)
    max_file_mb: int = setting(5_120, "megabytes of one file", low=1, high=1_048_576)
    part_mb: int = setting(
        64, "megabytes of a part; larger files are sent in parts of this size", low=5, high=1_024
    )
    parts_told: int = setting(100, "addresses of parts given out at a time", low=1, high=1_000)
    max_files: int = setting(20_000, "files that one account may keep", low=1, high=10_000_000)
    max_unfinished: int = setting(100, "uploads that one account may leave unfinished", low=1, high=100_000)
    upload_url_s: int = setting(900, "seconds in which the upload of a file must begin", low=1, high=604_800)
    download_url_s: int = setting(
        3_600, "seconds for which the address of a download is good", low=1, high=604_800
    )
    accesses_kept: int = setting(
        10_000,
        "downloads remembered, so that what is fetched within a minute is audited once",
        low=1,
        high=10_000_000,
    )
    upload_grace_s: int = setting(
        2_700,
        "seconds beyond upload_url_s after which an upload that was not completed is given up",
        low=0,
        high=2_592_000,
    )
    upload_parts_s: int = setting(
        86_400,
        "seconds after which an upload in parts is given up unless completed; at most minio.unfinished_h",
        low=60,
        high=2_592_000,
    )
    verify_s: float = setting(
        60.0, "seconds in which what was uploaded must be looked at and put in its place", low=1, high=600
    )
    verify_mb_s: int = setting(
        20,
        "megabytes of a file in parts that a second beyond that is allowed for",
        low=1,
        high=100_000,
    )
    verify_wait_s: float = setting(
        5.0, "seconds that completing such a file waits for it to be verified", low=0, high=30
    )
    verify_at_once: int = setting(2, "such files this node verifies at the same time", low=1, high=100)
    verify_poll_s: float = setting(
        5.0, "seconds between two looks for those that another node left", low=0.1, high=3_600
    )
    verify_lease_s: float = setting(
        30.0, "seconds after which another node goes on with what this one was verifying", low=1, high=3_600
    )
    sweep_s: float = setting(
        60.0, "seconds between two looks for uploads given up and deleted files", low=0.1, high=86_400
    )
    orphans_s: float = setting(
        21_600.0, "seconds between two looks for content that belongs to no file", low=1, high=2_592_000
    )
    recount_s: float = setting(
        86_400.0, "seconds between two comparisons of quotas with the files they count", low=1, high=2_592_000
    )
    orphans_h: int = setting(48, "hours such content is left alone before it is removed", low=1, high=10_000)

    @property
    def upload_s(self) -> int:
        """From the beginning of an upload to its end, however it ends."""
        return self.upload_url_s + self.upload_grace_s


@dataclass(frozen=True, slots=True)
class SignalingConfig:
    """Calls and their recordings."""

    max_participants: int = setting(
        4, "people in one call; each device sends to each of the others", low=2, high=32
    )
    ring_s: int = setting(
        60, "seconds after which whoever has not answered has missed a call", low=5, high=600
    )
    grace_s: int = setting(
        30, "seconds a device that lost its connection has to come back to its call", low=5, high=600
    )
    greet_s: float = setting(
        10.0, "seconds a signaling socket has for its first frame, join or resume", low=0.1, high=60
    )
    sockets: int = setting(
        1_000, "signaling sockets open on this node before more are 503", low=1, high=100_000
    )
    frame_bytes: int = setting(
        61_440, "bytes of one signaling frame; less than signals.payload_bytes", low=1_024, high=262_144
    )
    frames_per_10s: int = setting(
        300,
        "signaling frames of one device in ten seconds before it is closed with 4429",
        low=10,
        high=10_000,
    )
    bytes_per_10s: int = setting(
        524_288,
        "bytes of them; half of gateway.ws_outbox_bytes or less keeps flooding from whoever is sent it",
        low=65_536,
        high=104_857_600,
    )
    pass_s: float = setting(
        1.0,
        "seconds between two looks for calls nobody answers and devices that do not come back",
        low=0.05,
        high=60,
    )
    sweep_s: float = setting(
        3_600.0, "seconds between two looks for calls of conversations that are gone", low=1, high=86_400
    )
    roster_s: float = setting(
        5.0, "seconds between two looks at the table for who is in the calls of this node", low=0.1, high=60
    )
    recording_part_mb: int = setting(
        4, "mebibytes of one part of a recording, which is held in memory while it comes", low=1, high=16
    )
    recording_parts_at_once: int = setting(
        8, "parts of recordings taken in at the same time on this node before more are 503", low=1, high=100
    )
    recording_parts: int = setting(20_000, "parts of one recording", low=1, high=1_000_000)
    recording_mb: int = setting(2_048, "mebibytes of one recording", low=1, high=102_400)
    recording_s: int = setting(
        14_400, "seconds after which a recording is stopped, however long the call", low=10, high=86_400
    )
    recording_idle_s: int = setting(
        120,
        "seconds without a part after which a recording is finished without its recorder",
        low=5,
        high=3_600,
    )
    recording_finish_s: int = setting(
        900,
        "seconds in which the parts of a recording must be one file, or it is tried anew",
        low=10,
        high=14_400,
    )
    recording_days: int = setting(
        0, "days after which a recording is deleted; 0 keeps it until somebody deletes it", low=0, high=3_650
    )
    recording_upkeep_s: float = setting(
        600.0,
        "seconds between two looks for recordings whose time, file or conversation is gone",
        low=0.1,
        high=86_400,
    )
    recordings_per_call: int = setting(50, "recordings of one call", low=1, high=1_000)
