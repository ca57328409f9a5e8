-- min_program: 0.1.0
-- Where files are shared. Tables of the room storage.

-- Whoever is in the conversation, and may see what was said at `seq`, may read the file. message_id: of the
-- message there that carries it; empty: it was uploaded into the conversation, and no message carries it yet.
CREATE TABLE file_shares (
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    file_id uuid NOT NULL,
    message_id uuid,
    shared_at timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, seq, file_id)
);
CREATE INDEX file_shares_by_file ON file_shares (file_id, conversation_id, seq);
CREATE INDEX file_shares_waiting ON file_shares (file_id, conversation_id) WHERE message_id IS NULL;
CREATE INDEX file_shares_by_place ON file_shares (conversation_id, file_id, seq);

-- The conversation into which it is uploaded.
ALTER TABLE files ADD COLUMN conversation_id uuid;
-- As what its content may be shown, if that is known.
ALTER TABLE files ADD COLUMN media_type text;
