-- min_program: 0.1.0
-- Owners: outbox.py writes outbox; the room auth writes mail_tokens and registrations.

-- Mail waiting to be sent; a row is gone once it is. sealed: address and text, with a key of the master key:
-- there may be a token in it. user_id, kind: whom it is for, and why. claim: who tries to send it right now;
-- nobody else does before due_at.
CREATE TABLE outbox (
    mail_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    kind text NOT NULL,
    sealed bytea NOT NULL,
    attempts bigint NOT NULL DEFAULT 0,
    claim uuid,
    queued_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX outbox_by_due ON outbox (due_at);
CREATE INDEX outbox_by_end ON outbox (expires_at);
CREATE INDEX outbox_by_user ON outbox (user_id, kind);

-- Tokens that were mailed, as their SHA-256; a row is gone once its token is used. One for each person and
-- purpose. email: the address it was mailed to, and proves.
CREATE TABLE mail_tokens (
    user_id uuid NOT NULL,
    purpose text NOT NULL,
    token_hash bytea NOT NULL UNIQUE,
    email text NOT NULL,
    email_key text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, purpose)
);
CREATE INDEX mail_tokens_by_end ON mail_tokens (expires_at);

-- Accounts that begin once their e-mail address is confirmed; until then they hold their username. Several may
-- wait for one address, and an address that has an account waits like any other.
CREATE TABLE registrations (
    user_id uuid PRIMARY KEY,
    token_hash bytea NOT NULL UNIQUE,
    username text NOT NULL,
    username_key text NOT NULL UNIQUE,
    email text NOT NULL,
    email_key text NOT NULL,
    display_name text NOT NULL,
    password_hash text NOT NULL,
    created_at timestamptz NOT NULL,
    mailed_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX registrations_by_email ON registrations (email_key);
CREATE INDEX registrations_by_end ON registrations (expires_at);

ALTER TABLE users ADD COLUMN email_verified_at timestamptz;
