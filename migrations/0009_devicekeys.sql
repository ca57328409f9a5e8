-- min_program: 0.1.0
-- Public keys of devices, what devices send each other, and what people keep for themselves, sealed. Tables of the
-- room auth. Documents are text: signatures cover their very numbers and letters.

-- One row for each device that has published an identity. document: the signed device keys of an Olm client, as it
-- sent them; empty for one that only knows bundles.
CREATE TABLE device_keys (
    device_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    identity_key text NOT NULL,
    document text,
    published_at timestamptz NOT NULL
);
CREATE INDEX device_keys_by_user ON device_keys (user_id);

-- Each is handed out once. It is kept for a while after that, so that it is not taken again when the client, not
-- knowing whether it had arrived, sends it once more.
CREATE TABLE one_time_keys (
    device_id uuid NOT NULL,
    algorithm text NOT NULL,
    key_id text NOT NULL,
    document text NOT NULL,
    added_at timestamptz NOT NULL,
    claimed_at timestamptz,
    PRIMARY KEY (device_id, algorithm, key_id)
);
CREATE INDEX one_time_keys_left ON one_time_keys (device_id, algorithm, added_at, key_id) WHERE claimed_at IS NULL;
CREATE INDEX one_time_keys_by_claim ON one_time_keys (claimed_at) WHERE claimed_at IS NOT NULL;

-- Handed out when no one-time key is left; a signed pre-key is one. The row with replaced_at is the one before.
CREATE TABLE fallback_keys (
    device_id uuid NOT NULL,
    algorithm text NOT NULL,
    key_id text NOT NULL,
    document text NOT NULL,
    added_at timestamptz NOT NULL,
    used_at timestamptz,
    replaced_at timestamptz,
    PRIMARY KEY (device_id, algorithm, key_id)
);
CREATE INDEX fallback_keys_by_end ON fallback_keys (replaced_at) WHERE replaced_at IS NOT NULL;

-- What a claim was answered with, for the same claim again.
CREATE TABLE key_claims (
    device_id uuid NOT NULL,
    claim_key text NOT NULL,
    asked bytea NOT NULL,
    answer text NOT NULL,
    claimed_at timestamptz NOT NULL,
    PRIMARY KEY (device_id, claim_key)
);
CREATE INDEX key_claims_by_time ON key_claims (claimed_at);

-- When the keys of a device, or (with the person's own id as device_id) of a person, last changed or went.
CREATE TABLE key_changes (
    device_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    changed_at timestamptz NOT NULL
);
CREATE INDEX key_changes_by_user ON key_changes (user_id, changed_at);
CREATE INDEX key_changes_by_time ON key_changes (changed_at);

-- Who left which conversation, so that those who stayed learn whom they share none with any more.
CREATE TABLE key_departures (
    conversation_id uuid NOT NULL,
    user_id uuid NOT NULL,
    left_at timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
);
CREATE INDEX key_departures_by_user ON key_departures (user_id);
CREATE INDEX key_departures_by_time ON key_departures (left_at);

-- One row for each device that was ever sent something: its lock, and the numbers of its queue. last_position
-- is of the time, so that it never goes back. lists_us: up to when the device has learnt whose keys have changed.
CREATE TABLE inboxes (
    device_id uuid PRIMARY KEY,
    last_position bigint NOT NULL,
    messages bigint NOT NULL,
    size_bytes bigint NOT NULL,
    lists_us bigint NOT NULL
);

CREATE TABLE inbox_messages (
    device_id uuid NOT NULL,
    position bigint NOT NULL,
    sender_id uuid NOT NULL,
    type text NOT NULL,
    content text NOT NULL,
    size_bytes bigint NOT NULL,
    PRIMARY KEY (device_id, position)
);

-- Sendings, so that one made again sends nothing.
CREATE TABLE inbox_sendings (
    device_id uuid NOT NULL,
    txn text NOT NULL,
    answer text NOT NULL,
    sent_at timestamptz NOT NULL,
    PRIMARY KEY (device_id, txn)
);
CREATE INDEX inbox_sendings_by_time ON inbox_sendings (sent_at);

CREATE TABLE cross_signing_keys (
    user_id uuid NOT NULL,
    usage text NOT NULL CHECK (usage IN ('master', 'self_signing', 'user_signing')),
    public_key text NOT NULL,
    document text NOT NULL,
    PRIMARY KEY (user_id, usage)
);

-- Signatures that came after what they sign. target: a device id, or the public part of a master key.
CREATE TABLE key_signatures (
    signer_id uuid NOT NULL,
    user_id uuid NOT NULL,
    target text NOT NULL,
    signing_key text NOT NULL,
    signature text NOT NULL,
    PRIMARY KEY (signer_id, user_id, target, signing_key)
);
CREATE INDEX key_signatures_by_target ON key_signatures (user_id, target);

-- keys, size_bytes, etag: of what is in it. The one with the highest version takes keys.
CREATE TABLE backups (
    user_id uuid NOT NULL,
    version bigint NOT NULL,
    algorithm text NOT NULL,
    auth_data text NOT NULL,
    keys bigint NOT NULL,
    etag bigint NOT NULL,
    deleted_at timestamptz,
    PRIMARY KEY (user_id, version)
);

CREATE TABLE backup_keys (
    user_id uuid NOT NULL,
    version bigint NOT NULL,
    room_id text NOT NULL,
    session_id text NOT NULL,
    first_message_index bigint NOT NULL,
    forwarded_count bigint NOT NULL,
    is_verified boolean NOT NULL,
    session_data text NOT NULL,
    PRIMARY KEY (user_id, version, room_id, session_id)
);
