-- min_program: 0.1.0
-- Files, and what they take of each account's room. Tables of the room storage.

-- incoming: the random part of the key at which content arrives, so that nobody guesses it; what is kept lies at
-- files/<file_id>, a key that no address given out points to for writing.
-- upload_ends_at: until then something may arrive. received_at: what arrived was verified, and lies at its final key.
-- claimed_until: of whoever is verifying it. node_id: in whose spool it lies, or is to arrive; empty: in the store.
-- sweep_at: when there is something to remove; a file that was deleted keeps its row until that is done.
CREATE TABLE files (
    file_id uuid PRIMARY KEY,
    owner_id uuid NOT NULL,
    file_name text NOT NULL,
    file_size bigint NOT NULL,
    content_type text NOT NULL,
    is_encrypted boolean NOT NULL,
    encryption_metadata jsonb,
    checksum_sha256 text,
    status text NOT NULL CHECK (status IN ('uploading', 'verifying', 'completed', 'deleted', 'failed')),
    created_at timestamptz NOT NULL,
    incoming text NOT NULL,
    upload_ends_at timestamptz NOT NULL,
    received_at timestamptz,
    claimed_until timestamptz,
    node_id uuid,
    sweep_at timestamptz
);
CREATE INDEX files_by_owner ON files (owner_id, file_id);
CREATE INDEX files_by_sweep ON files (sweep_at) WHERE sweep_at IS NOT NULL;
CREATE INDEX files_by_node ON files (node_id, file_id) WHERE node_id IS NOT NULL;

-- One row for each account that ever began an upload. reserved_bytes and uploads: of what is not completed yet.
CREATE TABLE quotas (
    user_id uuid PRIMARY KEY,
    used_bytes bigint NOT NULL CHECK (used_bytes >= 0),
    reserved_bytes bigint NOT NULL CHECK (reserved_bytes >= 0),
    uploads bigint NOT NULL CHECK (uploads >= 0)
);
