-- min_program: 0.1.0
-- The index that messages are searched by. Tables of the room chat; made anew from the messages whenever it is
-- empty, and so neither moved nor told to anybody.

-- How far the index follows a conversation.
CREATE TABLE search_positions (
    conversation_id uuid PRIMARY KEY,
    change bigint NOT NULL
);

-- entry_id: grows with the time at which the message was made. words: as this product folds and splits them,
-- with their places, and the conversation.
CREATE TABLE search_entries (
    entry_id bigint PRIMARY KEY,
    conversation_id uuid NOT NULL,
    seq bigint NOT NULL,
    words tsvector NOT NULL,
    UNIQUE (conversation_id, seq)
);
-- Entries are written in the background, where their cost does not matter; what waits to be put in would be
-- read by every search.
CREATE INDEX search_index ON search_entries USING gin (words) WITH (fastupdate = off);
