-- min_program: 0.1.0
-- Which push service wakes a device, so that a slow one holds up no other; and what is said in groups, which
-- wakes people without a notification. Tables of the room chat.

-- way: the push service, `fcm` or the origin of a Web Push endpoint. Devices registered before have none: they
-- count as one service until their app says again where it is.
ALTER TABLE push_devices ADD COLUMN way text NOT NULL DEFAULT '';
ALTER TABLE pushes ADD COLUMN way text NOT NULL DEFAULT '';
CREATE INDEX pushes_by_way ON pushes (way, due_at);

-- Where it is about what was said in a group: the message, whose id stands for that of a notification.
ALTER TABLE pushes ADD COLUMN seq bigint;

-- notify: what of the conversation this member is told: all, mentions or none; null: what they chose for groups.
-- rung_seq: up to that message their devices have been woken for what is said in a group.
ALTER TABLE members ADD COLUMN notify text;
ALTER TABLE members ADD COLUMN rung_seq bigint NOT NULL DEFAULT 0;
