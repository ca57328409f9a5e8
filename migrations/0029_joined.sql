-- min_program: 0.1.0
-- Who joins is told nothing of what happened before them. Tables of the room chat.

-- Changes before it are not theirs to be told, as messages before visible_from_seq are not theirs to see.
ALTER TABLE members ADD COLUMN visible_from_change bigint NOT NULL DEFAULT 0;
