-- min_program: 0.1.0
-- Notifications: what people are told beside the conversation itself. Tables of the room chat.

-- ref: the message it is about; of `added` the conversation, of `announcement` that. seq: of the message, with
-- which it goes. actor_id: whose doing it is.
CREATE TABLE notifications (
    notification_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    kind text NOT NULL,
    conversation_id uuid,
    ref uuid NOT NULL,
    seq bigint,
    actor_id uuid,
    created_at timestamptz NOT NULL,
    read_at timestamptz
);
CREATE INDEX notifications_by_user ON notifications (user_id, notification_id);
CREATE INDEX notifications_by_conversation ON notifications (conversation_id, user_id, seq);
CREATE INDEX notifications_unread ON notifications (user_id, conversation_id, seq) WHERE read_at IS NULL;

-- How far each conversation has been looked through for what people are notified of.
CREATE TABLE notified (
    conversation_id uuid PRIMARY KEY,
    change bigint NOT NULL
);

-- Announcements that not everybody is notified of yet: people by id, up to this one.
CREATE TABLE announced (
    announcement_id uuid PRIMARY KEY,
    made_by uuid NOT NULL,
    told_up_to uuid NOT NULL
);

-- chosen: a JSON object; what it leaves out is as it is for everybody.
CREATE TABLE notification_preferences (
    user_id uuid PRIMARY KEY,
    chosen jsonb NOT NULL,
    updated_at timestamptz NOT NULL
);

-- Where pushes go: one for each device that people sign in from, and gone with its last session. target: what
-- it is told apart by, a hash of the token or address, so that a phone that changes hands is in one place.
-- sealed: that token or address, with the keys for what is sent there.
CREATE TABLE push_devices (
    device_id uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    service text NOT NULL CHECK (service IN ('fcm', 'webpush')),
    target bytea NOT NULL UNIQUE,
    sealed bytea NOT NULL,
    registered_at timestamptz NOT NULL
);
CREATE INDEX push_devices_by_user ON push_devices (user_id, registered_at);

-- Pushes waiting to be sent; a row is gone once it is. topic: the conversation, for the most part: a newer push
-- takes the place of the one that waits. was_here: the person was connected when it was due, and it was put off.
-- claim: who tries to send it right now; nobody else does before due_at.
CREATE TABLE pushes (
    device_id uuid NOT NULL,
    topic uuid NOT NULL,
    user_id uuid NOT NULL,
    notification_id uuid NOT NULL,
    attempts bigint NOT NULL DEFAULT 0,
    was_here boolean NOT NULL DEFAULT false,
    claim uuid,
    due_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (device_id, topic)
);
CREATE INDEX pushes_by_due ON pushes (due_at);
CREATE INDEX pushes_by_end ON pushes (expires_at);
CREATE INDEX pushes_by_user ON pushes (user_id);
