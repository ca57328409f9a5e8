-- min_program: 0.1.0
-- Messages: what they said before they were edited, whom they mention, when they disappear. Tables of the room
-- chat.

-- version: 1 is what was sent; the message itself has the last. seq: of the message, with which they go.
CREATE TABLE message_versions (
    message_id uuid NOT NULL,
    version bigint NOT NULL,
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    sender_id uuid NOT NULL,
    content text NOT NULL,
    is_encrypted boolean NOT NULL,
    written_at timestamptz NOT NULL,
    PRIMARY KEY (message_id, version)
);
CREATE INDEX message_versions_by_place ON message_versions (conversation_id, seq);
CREATE INDEX message_versions_by_sender ON message_versions (sender_id, message_id, version);

-- Who is mentioned in a message, for those who ask what concerns them; the message names them, too.
CREATE TABLE mentions (
    user_id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (user_id, conversation_id, seq)
);
CREATE INDEX mentions_by_place ON mentions (conversation_id, seq);

-- From then on nobody is shown it. Only messages that disappear cost an entry of the index.
ALTER TABLE messages ADD COLUMN expires_at timestamptz;
CREATE INDEX messages_by_end ON messages (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;
