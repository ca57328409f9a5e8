-- min_program: 0.1.0
-- Tables of the room auth: failed sign-ins, second factors, invites.

-- counter: an HMAC of what failures are counted for, so that the table names no address and tells of no name
-- whether it has an account. failures: their times, a JSON list of microseconds, the oldest first.
-- expires_at: when they mean nothing any more.
CREATE TABLE lockouts (
    counter bytea PRIMARY KEY,
    failures text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX lockouts_by_end ON lockouts (expires_at);

-- sealed: the shared secret, readable with the master key. confirmed_at: none while it is being set up.
-- last_step: of the newest code that was accepted; none of that step or before is accepted again.
CREATE TABLE totps (
    user_id uuid PRIMARY KEY,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    confirmed_at timestamptz,
    last_step bigint NOT NULL
);

-- What is left of them: a code that is spent is deleted. code_hash: an HMAC.
CREATE TABLE recovery_codes (
    user_id uuid NOT NULL,
    code_hash bytea NOT NULL,
    PRIMARY KEY (user_id, code_hash)
);

-- code_hash: SHA-256 of the code that stands in the link.
CREATE TABLE invites (
    invite_id uuid PRIMARY KEY,
    code_hash bytea NOT NULL UNIQUE,
    created_by uuid NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    max_uses bigint NOT NULL,
    uses bigint NOT NULL
);
CREATE INDEX invites_by_end ON invites (expires_at);
