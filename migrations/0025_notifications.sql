-- min_program: 0.1.0
-- Notifications: what people are told beside the conversation itself. Tables of the room chat.

-- ref: the message it is about; of `added` the conversation, of `announcement` that. seq: of the message: who
-- has read that far has read this, too. actor_id: whose doing it is.
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
CREATE INDEX notifications_unread ON notifications (user_id) WHERE read_at IS NULL;

-- How far each conversation has been looked through for what people are notified of.
CREATE TABLE notified (
    conversation_id uuid PRIMARY KEY,
    change bigint NOT NULL
);

-- chosen: a JSON object; what it leaves out is as it is for everybody.
CREATE TABLE notification_preferences (
    user_id uuid PRIMARY KEY,
    chosen jsonb NOT NULL,
    updated_at timestamptz NOT NULL
);
