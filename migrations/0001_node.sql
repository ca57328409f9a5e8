-- min_program: 0.1.0
-- Owners: node.py writes meta, nodes and secrets; audit.py writes audit and audit_head.

-- history_id and server_name, made at the first start.
CREATE TABLE meta (
    key text PRIMARY KEY,
    value text NOT NULL
);

-- One lease per node; calls, presence and spooled files name their node.
CREATE TABLE nodes (
    node_id uuid PRIMARY KEY,
    version text NOT NULL,
    started_at timestamptz NOT NULL,
    renewed_at timestamptz NOT NULL,
    lease_ends_at timestamptz NOT NULL
);

-- Sealed with the master key that key_id names; a version is used from active_at on.
CREATE TABLE secrets (
    name text NOT NULL,
    version bigint NOT NULL,
    sealed bytea NOT NULL,
    key_id text NOT NULL,
    created_at timestamptz NOT NULL,
    active_at timestamptz NOT NULL,
    PRIMARY KEY (name, version)
);

-- facts and personal are text, not jsonb: the seal and the commitment cover these very bytes.
-- personal and salt may be erased; the chain holds the commitment alone.
-- position, key_id and seal are empty until the sealer has chained the row.
CREATE TABLE audit (
    audit_id uuid PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    action text NOT NULL,
    actor_id uuid,
    subject text,
    facts text NOT NULL,
    personal text,
    salt bytea,
    commitment bytea,
    position bigint,
    key_id text,
    seal bytea
);
CREATE UNIQUE INDEX audit_position ON audit (position);
CREATE INDEX audit_unsealed ON audit (audit_id) WHERE position IS NULL;

-- One row: the end of the chain, and the lock that lets one sealer work at a time.
CREATE TABLE audit_head (
    name text PRIMARY KEY,
    count bigint NOT NULL,
    seal bytea NOT NULL
);
