-- min_program: 0.1.0
-- What people decide about themselves and each other. Tables of the room auth.

-- delete_at: when the account is erased; erased_at: what was personal is gone, the row stays for what names it.
-- While both are set, some room still holds something of the person.
ALTER TABLE users ADD COLUMN is_searchable boolean NOT NULL DEFAULT true;
ALTER TABLE users ADD COLUMN shows_last_seen boolean NOT NULL DEFAULT true;
ALTER TABLE users ADD COLUMN sends_read_receipts boolean NOT NULL DEFAULT true;
ALTER TABLE users ADD COLUMN delete_at timestamptz;
ALTER TABLE users ADD COLUMN erased_at timestamptz;
CREATE INDEX users_by_deletion ON users (delete_at) WHERE delete_at IS NOT NULL;

CREATE INDEX blocks_by_blocked ON blocks (blocked_id);

-- A row says that user_id wants friend_id as a friend. Both rows: they are friends.
CREATE TABLE friends (
    user_id uuid NOT NULL,
    friend_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (user_id, friend_id)
);
CREATE INDEX friends_by_friend ON friends (friend_id);

-- What an account is erased from; both shrink by that.
CREATE INDEX audit_by_actor ON audit (actor_id) WHERE personal IS NOT NULL;
CREATE INDEX audit_by_subject ON audit (subject) WHERE personal IS NOT NULL;
