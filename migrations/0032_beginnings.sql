-- min_program: 0.1.0
-- What has no message before it, and what is kept of whom. Tables of the room chat.

-- Who was there from the beginning sees what came before the first message, too: a poll.
UPDATE members SET visible_from_seq = 0 WHERE visible_from_seq = 1;

-- When people were last here is not kept of those who do not show it.
DELETE FROM last_seen WHERE user_id IN (SELECT user_id FROM users WHERE NOT shows_last_seen);

-- When the poll of a conversation whose messages disappear does so, too.
ALTER TABLE polls ADD COLUMN disappears_at timestamptz;
CREATE INDEX polls_by_disappearance ON polls (disappears_at) WHERE disappears_at IS NOT NULL;
