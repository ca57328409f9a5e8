-- min_program: 0.1.0
-- People, their devices and what they are signed in with. Tables of the room auth; users and blocks are published.

-- *_key: the case-folded form that uniqueness and search compare, never shown.
CREATE TABLE users (
    user_id uuid PRIMARY KEY,
    username text NOT NULL,
    username_key text NOT NULL UNIQUE,
    email text NOT NULL,
    email_key text NOT NULL UNIQUE,
    display_name text NOT NULL,
    display_key text NOT NULL DEFAULT '',
    avatar_url text,
    role text NOT NULL,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

CREATE TABLE blocks (
    user_id uuid NOT NULL,
    blocked_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, blocked_id)
);

-- A device outlives its sessions. Its secret is told once, at its first login; here stands its SHA-256.
CREATE TABLE devices (
    device_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    name text,
    secret_hash bytea NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX devices_by_user ON devices (user_id);

-- expires_at: when its newest refresh token ends.
CREATE TABLE sessions (
    session_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    device_id uuid NOT NULL,
    address text NOT NULL,
    user_agent text NOT NULL,
    created_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at timestamptz
);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_device ON sessions (device_id);
CREATE INDEX sessions_by_end ON sessions (expires_at);

-- token_hash: SHA-256. A spent token's successor is computed from the token itself, so it is not kept.
CREATE TABLE refresh_tokens (
    token_hash bytea PRIMARY KEY,
    session_id uuid NOT NULL,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    spent_at timestamptz
);
CREATE INDEX refresh_tokens_by_end ON refresh_tokens (expires_at);

-- Ended sessions whose access tokens would otherwise still pass; every node reads the new ones all the time.
CREATE TABLE revocations (
    session_id uuid PRIMARY KEY,
    revoked_at timestamptz NOT NULL,
    until_at timestamptz NOT NULL
);
CREATE INDEX revocations_by_time ON revocations (revoked_at);
CREATE INDEX revocations_by_end ON revocations (until_at);

-- token_ends_at: when the access token that asked for the ticket ends, and with it the socket.
CREATE TABLE tickets (
    ticket_hash bytea PRIMARY KEY,
    session_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    token_ends_at timestamptz NOT NULL
);
CREATE INDEX tickets_by_end ON tickets (expires_at);
