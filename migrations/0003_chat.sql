-- min_program: 0.1.0
-- Conversations, who is in them, what was said, and what else happened. Tables of the room chat; conversations
-- and members are published.

-- last_seq, last_change: heads of the two numbers. first_seq: the oldest message kept; min_change: what lies at
-- or below it is gone. touched_at: of the last change, by which every node finds what it has missed.
-- direct_key: both people of a direct conversation, so that there is one for each pair.
CREATE TABLE conversations (
    conversation_id uuid PRIMARY KEY,
    type text NOT NULL CHECK (type IN ('direct', 'group')),
    title text,
    avatar_url text,
    created_by uuid NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    last_seq bigint NOT NULL,
    last_change bigint NOT NULL,
    touched_at timestamptz NOT NULL,
    first_seq bigint NOT NULL,
    min_change bigint NOT NULL,
    is_e2ee_enabled boolean NOT NULL,
    recording_enabled boolean NOT NULL,
    message_retention_days bigint NOT NULL,
    direct_key text UNIQUE,
    history_visible boolean NOT NULL
);
CREATE INDEX conversations_by_touch ON conversations (touched_at, conversation_id);
CREATE INDEX conversations_by_retention ON conversations (message_retention_days);

-- visible_from_seq: messages before it are not theirs to see.
CREATE TABLE members (
    conversation_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member')),
    joined_at timestamptz NOT NULL,
    visible_from_seq bigint NOT NULL,
    last_read_seq bigint NOT NULL,
    PRIMARY KEY (conversation_id, user_id)
);
CREATE INDEX members_by_user ON members (user_id);

-- seq is dense over messages, change over everything durable that happened in the conversation.
-- A deleted message keeps its row without its text.
CREATE TABLE messages (
    message_id uuid PRIMARY KEY,
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    change bigint NOT NULL,
    sender_id uuid NOT NULL,
    client_message_id text NOT NULL,
    message_type text NOT NULL,
    content text NOT NULL,
    is_encrypted boolean NOT NULL,
    reply_to uuid,
    file_ids jsonb NOT NULL,
    metadata jsonb,
    sent_at timestamptz NOT NULL,
    edited_at timestamptz,
    deleted_at timestamptz,
    UNIQUE (conversation_id, seq),
    UNIQUE (conversation_id, change),
    UNIQUE (sender_id, client_message_id)
);
-- Unread counts are read from this alone.
CREATE INDEX messages_unread ON messages (conversation_id, seq, sender_id)
    WHERE deleted_at IS NULL AND message_type <> 'system';

-- Every durable event that is not a new message. ref: the message or person it is about; seq: of that message,
-- by which it is shown only to those who may see the message. data: small, never the text of a message.
CREATE TABLE changes (
    conversation_id uuid NOT NULL,
    change bigint NOT NULL,
    kind text NOT NULL,
    ref uuid,
    seq bigint,
    actor_id uuid,
    data jsonb,
    stored_at timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, change)
);
