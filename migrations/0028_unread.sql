-- min_program: 0.1.0
-- Unread counts that cost the same however much is unread, and when people were last here. Tables of the room chat.

-- Up to here messages are tallied, a whole number of blocks of 128.
ALTER TABLE conversations ADD COLUMN tallied_seq bigint NOT NULL DEFAULT 0;

-- How many messages somebody sent among the 128 that end with seq, those of the system left out and those deleted
-- since counted; a row never changes. sender_id of zeros: everybody.
CREATE TABLE message_tallies (
    conversation_id uuid NOT NULL,
    sender_id uuid NOT NULL,
    seq bigint NOT NULL,
    messages bigint NOT NULL,
    PRIMARY KEY (conversation_id, sender_id, seq)
);
CREATE INDEX message_tallies_by_place ON message_tallies (conversation_id, seq);

-- What has to be taken off the tallies.
CREATE INDEX messages_gone ON messages (conversation_id, seq, sender_id)
    WHERE deleted_at IS NOT NULL AND message_type <> 'system';

-- When people who show it were last here, to the minute.
CREATE TABLE last_seen (
    user_id uuid PRIMARY KEY,
    seen_at timestamptz NOT NULL
);
