-- min_program: 0.1.0
-- What people do with conversations beside talking. Tables of the room chat.

-- Messages sent while it is not 0 are gone after so many seconds.
ALTER TABLE conversations ADD COLUMN disappear_after_s bigint NOT NULL DEFAULT 0;

-- Until then this member wants to hear of nothing; the end of the calendar is for ever.
ALTER TABLE members ADD COLUMN muted_until timestamptz;

-- seq: of the message, by which it is shown only to those who may see that, and by which it goes with it.
CREATE TABLE pins (
    conversation_id uuid NOT NULL,
    message_id uuid NOT NULL,
    seq bigint NOT NULL,
    pinned_by uuid NOT NULL,
    pinned_at timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, message_id)
);
CREATE INDEX pins_by_user ON pins (pinned_by, message_id);

-- Conversations whose members are out and whose rows are still to go. change: of the deletion.
CREATE TABLE deleted_conversations (
    conversation_id uuid PRIMARY KEY,
    change bigint NOT NULL,
    deleted_by uuid NOT NULL,
    deleted_at timestamptz NOT NULL
);
-- Who was in them then, for nodes that have yet to tell them.
CREATE TABLE deleted_members (
    conversation_id uuid NOT NULL,
    user_id uuid NOT NULL,
    visible_from_seq bigint NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
);
