-- min_program: 0.1.0
-- What people put on messages. Table of the room chat.

-- seq: of the message, by which those of a page are read, and by which they go with it.
CREATE TABLE reactions (
    message_id uuid NOT NULL,
    emoji text NOT NULL,
    user_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    reacted_at timestamptz NOT NULL,
    PRIMARY KEY (message_id, emoji, user_id)
);
CREATE INDEX reactions_by_place ON reactions (conversation_id, seq);
CREATE INDEX reactions_by_user ON reactions (user_id, message_id, emoji);

-- So that a message without any costs nothing to read.
ALTER TABLE messages ADD COLUMN reaction_count bigint NOT NULL DEFAULT 0;
