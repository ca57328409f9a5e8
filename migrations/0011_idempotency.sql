-- min_program: 0.1.0
-- Owners: idempotency.py writes idempotency, audit writes audit_anchor.

-- What creating requests have made, by the Idempotency-Key they came with; deleted a day later.
-- fingerprint: SHA-256 of what was asked. result: JSON; empty only inside the transaction that makes it.
CREATE TABLE idempotency (
    user_id uuid NOT NULL,
    route text NOT NULL,
    key text NOT NULL,
    fingerprint bytea NOT NULL,
    result text,
    made_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, route, key)
);
CREATE INDEX idempotency_by_time ON idempotency (made_at);

-- One row, once retention has removed something: where the audit chain begins. seal: of the last row removed.
-- proof: an HMAC of the rest, so that nobody without the key can say that rows were removed lawfully.
CREATE TABLE audit_anchor (
    name text PRIMARY KEY,
    position bigint NOT NULL,
    seal bytea NOT NULL,
    cut_at timestamptz NOT NULL,
    key_id text NOT NULL,
    proof bytea NOT NULL
);
