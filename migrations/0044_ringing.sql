-- min_program: 0.1.0
-- Which calls ring for somebody, or have them in it. A table of the room signaling.
CREATE INDEX call_people_current ON call_people (user_id, call_id) WHERE state IN ('joined', 'ringing');

-- Pushes about calls, whose topic is the call. ring: incoming or cancelled, and notification_id is the call, too;
-- missed: the notification of that. A table of the room chat.
ALTER TABLE pushes ADD COLUMN ring text;

-- written_at: when the conversation was told of a call that is over. Of the room signaling.
ALTER TABLE calls ADD COLUMN written_at timestamptz;
CREATE INDEX calls_unwritten ON calls (call_id) WHERE ended_at IS NOT NULL AND written_at IS NULL;
