-- min_program: 0.1.0
-- Lists of conversations whose pages cost the same however many somebody has. Tables of the room chat.

-- The hour since 1970 in which something was last said; of members a copy, which a conversation's first message
-- of an hour renews. Lists go from hour to hour along it, and are in order within each by the messages themselves.
-- Where nothing was said since this was added it is 0, and so it may be of a member whom a program from before adds.
ALTER TABLE conversations ADD COLUMN active_hour bigint NOT NULL DEFAULT 0;
ALTER TABLE members ADD COLUMN active_hour bigint NOT NULL DEFAULT 0;
CREATE INDEX members_by_activity ON members (user_id, active_hour);
DROP INDEX members_by_user;
