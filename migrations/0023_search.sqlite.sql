-- min_program: 0.1.0
-- The index that messages are searched by. Tables of the room chat; made anew from the messages whenever it is
-- empty, and so neither moved nor told to anybody.

-- How far the index follows a conversation.
CREATE TABLE search_positions (
    conversation_id TEXT PRIMARY KEY,
    change INTEGER NOT NULL
) STRICT;

-- entry_id: grows with the time at which the message was made.
CREATE TABLE search_entries (
    entry_id INTEGER PRIMARY KEY,
    conversation_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    UNIQUE (conversation_id, seq)
) STRICT;

-- rowid: the entry's id. place: its conversation. words: as this product folds and splits them, with blanks
-- between; the tokenizer only splits there. Old versions of SQLite leave what is deleted in the index until its
-- parts are merged.
CREATE VIRTUAL TABLE search_index USING fts5(place, words, tokenize = 'ascii', prefix = '2 3');
INSERT INTO search_index (search_index, rank) VALUES ('usermerge', 2);

-- One row. removed_at: when the first word was deleted that no merge under way covers. is_merging: it is.
CREATE TABLE search_upkeep (
    one INTEGER PRIMARY KEY,
    removed_at INTEGER,
    is_merging INTEGER NOT NULL
) STRICT;
INSERT INTO search_upkeep (one, removed_at, is_merging) VALUES (1, NULL, 0);
